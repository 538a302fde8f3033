-- KEYS[1] cursor; ARGV: seq. Returns where the cursor now stands.
local at = redis.call('GET', KEYS[1])
if at and not above(ARGV[1], at) then
  return at
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
