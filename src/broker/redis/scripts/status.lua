-- Common beginning of all status scripts. A call concerns the users of one bucket.
-- KEYS[1] deadlines: user -> time of the next check, in milliseconds; users' hashes and the bucket's hash `sweeps` have
-- the same key prefix and slot
-- ARGV[1..4] prefix of the pub/sub channels of statuses; length of a lease, length of the grace period, and how long a
-- user is kept, in milliseconds
--
-- A user's hash: mode, chosen (time of the choice, in microseconds), status, last (last_seen), version, seen (last sign
-- of life of ended connections), grace (end of the grace period), and ':client' -> 'till seen idle' for each lease.
-- Times are by Redis's clock, so that the gateways' clocks need not agree.
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local base = string.sub(KEYS[1], 1, -10)
local LIVE, LEASE, GRACE, KEEP = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function text(number)
  return string.format('%.0f', number)
end

-- The end of a lease taken now, as a number and as text: formatting is a large part of the time of a call.
local TILL = now + LEASE
local TILL_TEXT = text(TILL)

local function key_of(user)
  return base .. 'user:' .. user
end

local function lease_of(value)
  local till, seen, idle = string.match(value, '^(%d+) (%d+) (%d)$')
  return { till = tonumber(till), seen = tonumber(seen), idle = idle == '1' }
end

local function load(user)
  local it = {
    user = user, key = key_of(user), leases = {},
    mode = 'online', chosen = 0, status = 'offline', last = '', version = 0, seen = 0, grace = 0,
    -- Fields that have changed, apart from the leases.
    changed = {},
  }
  local fields = redis.call('HGETALL', it.key)
  if #fields == 0 then
    for _, name in ipairs({ 'mode', 'chosen', 'status', 'last', 'version', 'seen', 'grace' }) do
      it.changed[name] = true
    end
  end
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if string.sub(name, 1, 1) == ':' then
      it.leases[string.sub(name, 2)] = lease_of(value)
    elseif name == 'mode' or name == 'status' or name == 'last' then
      it[name] = value
    else
      it[name] = tonumber(value)
    end
  end
  return it
end

local function set(it, name, value)
  it[name] = value
  it.changed[name] = true
end

local function write_lease(key, client, age, idle)
  redis.call('HSET', key, ':' .. client, TILL_TEXT .. ' ' .. text(now - age) .. ' ' .. idle)
end

local function take(it, client, age, idle)
  it.leases[client] = { till = TILL, seen = now - age, idle = idle == '1' }
  write_lease(it.key, client, age, idle)
end

local function drop(it, client, seen)
  it.leases[client] = nil
  if seen > it.seen then
    set(it, 'seen', seen)
  end
  redis.call('HDEL', it.key, ':' .. client)
end

-- The number of live connections other than `client`.
local function others(it, client)
  local count = 0
  for name, lease in pairs(it.leases) do
    if name ~= client and lease.till > now then
      count = count + 1
    end
  end
  return count
end

local function choose(it, mode, chosen)
  set(it, 'mode', mode)
  set(it, 'chosen', chosen)
end

-- Computes the status, stores changed fields, and announces a changed status.
local function recompute(it)
  local connected, busy, due = false, false, nil
  for client, lease in pairs(it.leases) do
    if lease.till <= now then
      drop(it, client, lease.seen)
    else
      connected = true
      busy = busy or not lease.idle
      due = math.min(due or lease.till, lease.till)
    end
  end
  -- The grace period continues beside a lease, which may belong to a dead gateway.
  if it.grace > now then
    due = due or it.grace
  elseif it.grace > 0 then
    set(it, 'grace', 0)
  end

  local status = 'offline'
  if it.mode == 'invisible' then
    status = 'offline'
  elseif not connected then
    status = due and it.status or 'offline'
  elseif it.mode ~= 'online' then
    status = it.mode
  elseif busy then
    status = 'online'
  else
    status = 'away'
  end
  local news = status ~= it.status
  if news then
    local left = status == 'offline' and not connected and it.mode ~= 'invisible'
    set(it, 'status', status)
    set(it, 'last', text(left and it.seen or now))
    set(it, 'version', math.max(it.version + 1, micros))
  end

  -- Writes, which can fail for lack of memory, come before the announcement.
  local fields = {}
  for name in pairs(it.changed) do
    local value = it[name]
    fields[#fields + 1] = name
    fields[#fields + 1] = type(value) == 'number' and text(value) or value
  end
  if #fields > 0 then
    redis.call('HSET', it.key, unpack(fields))
  end
  -- Renewals within the next half of a lease leave the expiry as it is.
  redis.call('PEXPIRE', it.key, KEEP + 2 * LEASE + GRACE)
  if due then
    redis.call('ZADD', KEYS[1], due == TILL and TILL_TEXT or text(due), it.user)
  else
    redis.call('ZREM', KEYS[1], it.user)
  end
  if news then
    redis.call(PUBLISH, LIVE .. it.user .. '}', 'v' .. text(it.version) .. ':' .. it.status .. ':' .. it.last)
  end
end

