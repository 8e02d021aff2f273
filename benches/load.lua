-- wrk script: sends the multipart bodies in the directory POSTERS (files 0, 1, …) round-robin and prints the results as a line of JSON.
local bodies, next_body, threads = {}, 0, {}
-- Globals, because wrk reads them from each thread.
ok, rejected, errors = 0, 0, 0

function setup(thread)
    threads[#threads + 1] = thread
end

function init()
    while true do
        local file = io.open(os.getenv("POSTERS") .. "/" .. #bodies, "rb")
        if not file then break end
        bodies[#bodies + 1] = file:read("*a")
        file:close()
    end
end

function request()
    next_body = next_body + 1
    return wrk.format("POST", nil, {["Content-Type"] = "multipart/form-data; boundary=cut"}, bodies[next_body % #bodies + 1])
end

function response(status)
    if status == 200 then ok = ok + 1 elseif status == 503 or status == 429 then rejected = rejected + 1 else errors = errors + 1 end
end

function done(summary, latency)
    local counts = {ok = 0, rejected = 0, errors = 0}
    for _, thread in ipairs(threads) do
        for name in pairs(counts) do counts[name] = counts[name] + thread:get(name) end
    end
    local failed = summary.errors
    io.stderr:write(string.format(
        '{"seconds": %f, "ok": %d, "rejected": %d, "errors": %d, "p50": %f, "p99": %f}\n',
        summary.duration / 1e6, counts.ok, counts.rejected,
        counts.errors + failed.connect + failed.read + failed.write + failed.timeout,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
