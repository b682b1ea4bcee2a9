"""The measures, one file each: settings, formula, and labels for tables and figures."""
