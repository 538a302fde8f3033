-- ARGV from 5, for each lease: user, client, idle (1 or 0), age of the last sign of life, the mode as the node knows it with
-- the time of the choice, and the maximum number of the user's other connections (-1: no limit). Returns mode and time of
-- the choice for each lease; '' twice for a connection past the user's limit, for which nothing is changed.
local answers = {}

local function answer(mode, chosen)
  answers[#answers + 1] = mode
  answers[#answers + 1] = chosen
end

-- Short renewal: writes the lease's times alone, and leaves the user's deadline and expiry as they are. Returns false, with
-- nothing written, if the whole user has to be computed: for a new or expired lease, a changed idleness or mode, and a
-- deadline that is missing, later than the new lease's end, or less than half a lease ahead. The last is the case at about
-- every second renewal.
local function renew(user, client, idle, age, chosen)
  local key = key_of(user)
  local found = redis.call('HMGET', key, ':' .. client, 'mode', 'chosen')
  if not (found[1] and found[2] and found[3]) or tonumber(chosen) > tonumber(found[3]) then
    return false
  end
  local lease = lease_of(found[1])
  if lease.till <= now or lease.idle ~= (idle == '1') then
    return false
  end
  local due = tonumber(redis.call('ZSCORE', KEYS[1], user) or '0')
  if due < now + LEASE / 2 or due > TILL then
    return false
  end
  write_lease(key, client, age, idle)
  answer(found[2], found[3])
  return true
end

for i = 5, #ARGV, 7 do
  local user, client, idle, age, mode, chosen, limit = unpack(ARGV, i, i + 6)
  age, limit = tonumber(age), tonumber(limit)
  if limit >= 0 or not renew(user, client, idle, age, chosen) then
    local it = load(user)
    if limit >= 0 and others(it, client) >= limit then
      answer('', '')
    else
      if tonumber(chosen) > it.chosen then
        choose(it, mode, tonumber(chosen))
      end
      take(it, client, age, idle)
      recompute(it)
      answer(it.mode, text(it.chosen))
    end
  end
end
return answers
