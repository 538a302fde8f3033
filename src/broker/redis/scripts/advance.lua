-- KEYS[1] mark; ARGV: the new mark. Returns the current mark.
return advance(KEYS[1], ARGV[1])
