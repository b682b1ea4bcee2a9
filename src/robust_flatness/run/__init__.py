"""Jobs of training and measuring, the state they resume from, planning, verification, export."""
