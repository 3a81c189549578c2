-- wrk's script: sends the ready-made requests of a file, each once, and prints what came of them as one JSON line.
-- The file holds, for each request, its length in 8 digits and its bytes.

local threads = {}
local requests = {}
local count, position = 0, 0
repeated = false

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local length = file:read(8)
  while length do
    count = count + 1
    requests[count] = file:read(tonumber(length))
    length = file:read(8)
  end
  file:close()
end

function request()
  if position == count then
    position, repeated = 0, true
  end
  position = position + 1
  return requests[position]
end

function done(summary, latency, _)
  local again = false
  for _, thread in ipairs(threads) do
    again = again or thread:get("repeated")
  end
  local errors = summary.errors
  io.write(string.format(
    '{"answered": %d, "refused": %d, "broken": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "repeated": %s}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, tostring(again)))
end
