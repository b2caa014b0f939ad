"""The commands, by what they touch; `cli` puts them together."""
