"""The operating system: host, memory, folders, atomic writes, interrupts."""
