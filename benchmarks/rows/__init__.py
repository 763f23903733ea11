"""What is measured, one topic a module."""
