-- ARGV from 5: users. Returns status, last_seen and version for each; status '' if not known yet.
local sweeps = redis.call('HMGET', base .. 'sweeps', 'at', 'fresh')
local fresh = not sweeps[1] or tonumber(sweeps[2] or '0') > now
local answers = {}
for i = 5, #ARGV do
  local found = redis.call('HMGET', base .. 'user:' .. ARGV[i], 'status', 'last', 'version')
  if not found[1] then
    found = fresh and { '', '', '0' } or { 'offline', '', text(micros) }
  end
  for part = 1, 3 do
    answers[#answers + 1] = found[part]
  end
end
return answers
