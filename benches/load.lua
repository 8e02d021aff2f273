-- What wrk sends and counts: POSTERS names a folder of multipart bodies (0, 1, …), sent in turn; the end is one line of JSON.
local bodies, turn, threads = {}, 0, {}
ok, refused, wrong = 0, 0, 0

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
    turn = turn + 1
    return wrk.format("POST", nil, {["Content-Type"] = "multipart/form-data; boundary=cut"}, bodies[turn % #bodies + 1])
end

function response(status)
    if status == 200 then ok = ok + 1 elseif status == 503 or status == 429 then refused = refused + 1 else wrong = wrong + 1 end
end

function done(summary, latency)
    local counts = {ok = 0, refused = 0, wrong = 0}
    for _, thread in ipairs(threads) do
        for name in pairs(counts) do counts[name] = counts[name] + thread:get(name) end
    end
    local lost = summary.errors
    io.stderr:write(string.format(
        '{"seconds": %f, "ok": %d, "refused": %d, "wrong": %d, "p50": %f, "p99": %f}\n',
        summary.duration / 1e6, counts.ok, counts.refused,
        counts.wrong + lost.connect + lost.read + lost.write + lost.timeout,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
