-- KEYS[1] mark; ARGV: the new mark. Moves the mark forward within the generation. Returns the current mark.
local at = redis.call('GET', KEYS[1])
if at then
  local generation, seq = parts(at)
  local new_generation, new_seq = parts(ARGV[1])
  if generation ~= new_generation or not above(new_seq, seq) then
    return at
  end
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
