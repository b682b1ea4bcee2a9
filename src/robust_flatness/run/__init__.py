"""What the commands do: jobs of training and measuring, their state against interruptions, planning, verification."""
