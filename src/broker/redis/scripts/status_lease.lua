-- ARGV from 5: user, client, idle (1 or 0), age of its last sign of life, the node's idea of the mode and since when,
-- by turns. Returns the mode and since when, for each.
local answers = {}
for i = 5, #ARGV, 6 do
  local it = load(ARGV[i])
  if tonumber(ARGV[i + 5]) > it.chosen then
    choose(it, ARGV[i + 4], tonumber(ARGV[i + 5]))
  end
  take(it, ARGV[i + 1], tonumber(ARGV[i + 3]), ARGV[i + 2])
  settle(it)
  answers[#answers + 1] = it.mode
  answers[#answers + 1] = text(it.chosen)
end
return answers
