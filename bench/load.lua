-- Ends sessions for wrk: each thread takes every n-th position of the walk, so that no two threads, and no two
-- requests of one, ever name the same session. Parameters: first size step position prefix tokens-file detail.
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  first, size, step, position = tonumber(args[1]), tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  prefix, count, detail = args[5], tonumber(args[7]), args[8] == "detail"
  tails = {}
  for token in io.lines(args[6]) do
    table.insert(tails, " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nAuthorization: Bearer " .. token .. "\r\n\r\n")
  end
  sent, seconds, statuses, began = 0, {}, {}, os.time()
  if not detail then response = nil end
end

function request()
  local at = position + number + sent * count
  sent = sent + 1
  local id = prefix .. string.format("%08d", first + (at * step) % size)
  return "DELETE /v2/sessions/" .. id .. tails[at % #tails + 1]
end

-- Only asked for where the course of a run matters: it costs the load generator processor time.
function response(status)
  local second = os.time() - began + 1
  if status == 200 then seconds[second] = (seconds[second] or 0) + 1
  else statuses[status] = (statuses[status] or 0) + 1 end
end

local function sum(name)
  local total = {}
  for _, thread in ipairs(threads) do
    for key, value in pairs(thread:get(name)) do total[key] = (total[key] or 0) + value end
  end
  local parts = {}
  for key, value in pairs(total) do table.insert(parts, string.format('"%d":%d', key, value)) end
  return "{" .. table.concat(parts, ",") .. "}"
end

function done(summary, latency)
  local most = 0
  for _, thread in ipairs(threads) do most = math.max(most, thread:get("sent")) end
  local errors = summary.errors
  io.write(string.format('\nRESULT {"requests":%d,"micros":%d,"perThread":%d,"refused":%d,"broken":%d,"late":%d,' ..
    '"p50":%d,"p90":%d,"p99":%d,"max":%d,"seconds":%s,"statuses":%s}\n',
    summary.requests, summary.duration, most, errors.status, errors.connect + errors.read + errors.write, errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max, sum("seconds"), sum("statuses")))
end
