-- The bucket's hash `sweeps`: at (time of the last sweep), hold (no sweep before this time), fresh (until this time,
-- nodes may still have to restore leases that Redis has lost). Returns the number of checked users.
local sweeps = redis.call('HMGET', base .. 'sweeps', 'at', 'hold', 'fresh')
local at, hold, fresh = tonumber(sweeps[1] or '0'), tonumber(sweeps[2] or '0'), tonumber(sweeps[3] or '0')
if at == 0 then
  fresh = now + LEASE
elseif math.abs(now - at) > LEASE / 3 then
  -- Leases could not be renewed meanwhile, or the clock has jumped.
  hold = now + LEASE
end
redis.call('HSET', base .. 'sweeps', 'at', text(now), 'hold', text(hold), 'fresh', text(fresh))
if hold > now then
  return 0
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'LIMIT', 0, 100)
for _, user in ipairs(due) do
  recompute(load(user))
end
return #due
