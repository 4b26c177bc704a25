/** Exit codes, uncaught errors, and what else could keep a process. */
import { Effect } from "effect"
import { connect } from "../../../test/support/peers.ts"
import { answered, type Group, inFlight } from "../case.ts"
import { expect } from "../server.ts"

const exitsWith0 = (signal: "SIGTERM" | "SIGINT" | "SIGHUP"): Group["cases"][number] => ({
  name: `After ${signal} and a clean stop the exit code is 0`,
  origin: signal === "SIGHUP" ? "kms, close-with-grace" : "close-with-grace, terminus, kms",
  ...(signal === "SIGHUP" ? { needs: ["SIGHUP"] as const } : {}),
  knownToFail: signal === "SIGHUP" ? [] : ["NodeHttpServer"],
  because: "ends with 130, which supervisors count as a failure",
  run: Effect.fnUntraced(function* (server) {
    const peer = yield* inFlight(server, "/slow?ms=500")
    yield* server.signal(signal)
    yield* answered(peer, "slow")
    peer.socket.destroy()
    const ended = yield* server.ends()
    yield* expect(ended.code === 0, `it ended with ${ended.signal ?? ended.code}`)
  })
})

const uncaught = (path: "/throw" | "/reject", what: string): Group["cases"][number] => ({
  name: `After ${what} what is in flight is answered, and the exit code is 1`,
  origin: "close-with-grace",
  needs: ["uncaught"],
  run: Effect.fnUntraced(function* (server) {
    const peer = yield* inFlight(server, "/slow?ms=700")
    const other = yield* connect(server.port)
    other.get(path)
    yield* answered(peer, "slow")
    peer.socket.destroy()
    other.socket.destroy()
    const { code } = yield* server.ends()
    yield* expect(code === 1, `it ended with ${code}`)
  })
})

export const exits: Group = {
  name: "Exit codes and uncaught errors",
  cases: [
    exitsWith0("SIGTERM"),
    exitsWith0("SIGINT"),
    exitsWith0("SIGHUP"),
    {
      name: "A timer that nobody cleared does not keep the process",
      origin: "sio; no suite",
      needs: ["process"],
      settings: { leak: true },
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* server.endsCleanly()
      })
    },
    uncaught("/throw", "an uncaught exception"),
    uncaught("/reject", "an unhandled rejection"),
    {
      name: "An uncaught exception during a stop shows in the exit code",
      origin: "close-with-grace",
      needs: ["uncaught"],
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=2500")
        const other = yield* connect(server.port)
        other.get("/throw?ms=1000")
        yield* answered(other, "done")
        yield* server.signal()
        yield* Effect.ignoreCause(answered(peer, "slow"))
        peer.socket.destroy()
        const { code } = yield* server.ends()
        yield* expect(code === 1, `it ended with ${code}`)
      })
    }
  ]
}
