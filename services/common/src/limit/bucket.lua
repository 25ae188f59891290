-- Charges a bucket; gcra.rs computes the same. KEYS[1] is the bucket, ARGV are cost, size and most, in microseconds.
-- Returns whether the charge is admitted, and how long the bucket takes to refill.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost, size, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local before = tonumber(redis.call('GET', KEYS[1]) or now) or now
before = math.min(math.max(before, now), now + most)
local after = math.max(before + cost, now)
if after - now > size then
  return {0, before - now}
end
if cost ~= 0 then
  -- Not tostring, which rounds to 14 digits. A full bucket needs no key.
  local expiry = math.max(math.ceil((after - now) / 1000), 1)
  redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', string.format('%.0f', expiry))
end
return {1, after - now}
