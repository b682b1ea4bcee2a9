"""The commands: options in, one call of the library, one result out."""
