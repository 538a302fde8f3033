-- Compares decimal numbers of up to 64 bits as strings: Lua's numbers are exact to 2^53 only.
local function above(a, b)
  return #a > #b or (#a == #b and a > b)
end

