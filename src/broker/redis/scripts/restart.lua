-- KEYS[1] mark; ARGV: the first mark of a new generation. Does nothing if the generation has already begun. Returns the
-- current mark.
local at = redis.call('GET', KEYS[1])
if at and not above((parts(ARGV[1])), (parts(at))) then
  return at
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
