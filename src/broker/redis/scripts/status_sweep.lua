-- The bucket's own hash: at (the last sweep), hold (no sweep before that), fresh (until then, nodes may have to bring
-- back what Redis has lost). Returns how many users were looked at.
local sweeps = redis.call('HMGET', base .. 'sweeps', 'at', 'hold', 'fresh')
local at, hold, fresh = tonumber(sweeps[1] or '0'), tonumber(sweeps[2] or '0'), tonumber(sweeps[3] or '0')
if at == 0 then
  fresh = now + LEASE
elseif math.abs(now - at) > LEASE / 3 then
  -- Nobody could renew anything meanwhile, or the clock has jumped.
  hold = now + LEASE
end
redis.call('HSET', base .. 'sweeps', 'at', text(now), 'hold', text(hold), 'fresh', text(fresh))
if hold > now then
  return 0
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, 100)
for _, user in ipairs(due) do
  settle(load(user))
end
return #due
