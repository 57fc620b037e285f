"""The kernel's network stack above the driver: up to the application, or out again."""
