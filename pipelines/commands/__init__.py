"""The commands of `wattstream`, by what they are about; each loads what it needs when it is called."""
