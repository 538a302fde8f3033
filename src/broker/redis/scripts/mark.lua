-- A mark is "generation seq fingerprint boot", all decimal.
local function parts(mark)
  return string.match(mark, '^(%d+) (%d+) ')
end

-- Moves the mark forward within the generation. Returns the current mark.
local function advance(key, mark)
  local at = redis.call('GET', key)
  if at then
    local generation, seq = parts(at)
    local new_generation, new_seq = parts(mark)
    if generation ~= new_generation or not above(new_seq, seq) then
      return at
    end
  end
  redis.call('SET', key, mark)
  return mark
end

