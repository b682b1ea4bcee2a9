"""Jobs of the workflow: what each command computes, writes, and resumes after an interruption."""
