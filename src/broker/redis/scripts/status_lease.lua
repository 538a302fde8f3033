-- ARGV[5] maximum number of the user's other connections (-1: no limit); from 6, for each lease: user, client, idle (1 or
-- 0), age of the last sign of life, and the mode as the node knows it with the time of the choice. Returns mode and time of
-- the choice for each lease; past the limit, nothing is changed or returned.
local limit = tonumber(ARGV[5])
local answers = {}
for i = 6, #ARGV, 6 do
  local it = load(ARGV[i])
  if limit >= 0 and others(it, ARGV[i + 1]) >= limit then
    return answers
  end
  if tonumber(ARGV[i + 5]) > it.chosen then
    choose(it, ARGV[i + 4], tonumber(ARGV[i + 5]))
  end
  take(it, ARGV[i + 1], tonumber(ARGV[i + 3]), ARGV[i + 2])
  recompute(it)
  answers[#answers + 1] = it.mode
  answers[#answers + 1] = text(it.chosen)
end
return answers
