-- A mark is "generation seq fingerprint boot", all decimal.
local function parts(mark)
  return string.match(mark, '^(%d+) (%d+) ')
end
