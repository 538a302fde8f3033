-- ARGV[5] user, ARGV[6] the new mode, or '' to read only. Returns mode, time of the choice, status, last_seen, version.
local it = load(ARGV[5])
if ARGV[6] ~= '' then
  choose(it, ARGV[6], math.max(it.chosen + 1, micros))
end
recompute(it)
return { it.mode, text(it.chosen), it.status, it.last, text(it.version) }
