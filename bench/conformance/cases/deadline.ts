/** The limit of a stop, and a second signal. */
import { Effect } from "effect"
import { upload } from "../../../test/support/peers.ts"
import { answered, type Group, inFlight } from "../case.ts"
import { expect, gone, type Server, within } from "../server.ts"

const limited = { grace: 1500 } as const
const noLimit = "has no limit"

/** Milliseconds from the signal to the end of a process in which a handler of this path hangs. */
const endsIn = Effect.fnUntraced(function* (server: Server, path: string) {
  yield* inFlight(server, path)
  const signalled = performance.now()
  yield* server.signal()
  return (yield* server.ends(gone)).at - signalled
})

export const deadline: Group = {
  name: "Deadline and hung handlers",
  cases: [
    {
      name: "A handler that never answers does not outlive the limit",
      origin: "stoppable, http-terminator, http-graceful-shutdown, kms, ThousandIsland, close-with-grace",
      settings: limited,
      knownToFail: ["node:http", "fastify"],
      because: noLimit,
      run: (server) => endsIn(server, "/never")
    },
    {
      name: "A handler that never answers is given the whole of the limit",
      origin: "stoppable, hapi",
      settings: limited,
      knownToFail: ["node:http", "fastify"],
      because: noLimit,
      run: Effect.fnUntraced(function* (server) {
        const millis = yield* endsIn(server, "/never")
        // Whole milliseconds, and a timer may be early by one.
        yield* expect(millis >= limited.grace - 10, `it ended after ${Math.round(millis)} ms`)
      })
    },
    {
      name: "A handler that cannot be interrupted does not outlive the limit",
      origin: "no suite; probe",
      settings: limited,
      knownToFail: ["node:http", "fastify", "NodeHttpServer"],
      because: `${noLimit}; NodeHttpServer waits for the handler`,
      run: (server) => endsIn(server, "/stuck")
    },
    {
      name: "A request that does end is answered beside one that never does",
      origin: "stoppable",
      settings: limited,
      run: Effect.fnUntraced(function* (server) {
        yield* inFlight(server, "/never")
        const peer = yield* inFlight(server, "/slow?ms=700")
        yield* server.signal()
        yield* answered(peer, "slow")
      })
    },
    {
      name: "Half a body that is never finished does not outlive the limit",
      origin: "no suite; probe",
      settings: limited,
      knownToFail: ["node:http", "fastify"],
      because: noLimit,
      run: Effect.fnUntraced(function* (server) {
        yield* upload(server.port, "/upload", Buffer.alloc(100_000))
        yield* server.began("/upload")
        yield* server.signal()
        yield* server.ends(gone)
      })
    },
    {
      name: "A client that stops reading does not outlive the limit",
      origin: "no suite; probe",
      settings: limited,
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/big?mb=32")
        yield* within(3000, "the response begins")(peer.head)
        peer.socket.pause()
        yield* server.signal()
        yield* server.ends(gone)
      })
    },
    {
      name: "What was cut shows in the exit code",
      origin: "kms, close-with-grace",
      settings: limited,
      needs: ["process"],
      knownToFail: ["NodeHttpServer", "terminus", "http-graceful-shutdown"],
      because: "ends with the same code as after a clean stop",
      run: Effect.fnUntraced(function* (server) {
        yield* inFlight(server, "/never")
        yield* server.signal()
        yield* server.endsInFailure(gone)
      })
    },
    {
      name: "After a cut the clean-up still runs",
      origin: "fx, cats-effect",
      settings: limited,
      needs: ["clean-up"],
      knownToFail: ["fastify", "close-with-grace"],
      because: "waits for the handler, or exits without it",
      run: Effect.fnUntraced(function* (server) {
        yield* inFlight(server, "/never")
        yield* server.signal()
        yield* within(gone, "the clean-up runs")(server.program.printed(/^released database$/m))
        yield* server.ends(gone)
      })
    }
  ]
}

const atOnce = 2500
/** Longer than any echo of a signal takes, on a busy machine too. */
const later = 2500

export const again: Group = {
  name: "A second signal",
  cases: [
    {
      name: "The same signal again, some time later, ends the process at once",
      origin: "kms, close-with-grace, tokio-graceful",
      needs: ["process"],
      knownToFail: ["terminus", "NodeHttpServer"],
      because: "ignores it",
      run: Effect.fnUntraced(function* (server) {
        yield* inFlight(server, "/never")
        yield* server.signal()
        yield* Effect.sleep(later)
        yield* server.send("SIGTERM")
        yield* server.endsInFailure(atOnce)
      })
    },
    {
      name: "Another signal, some time later, ends the process at once",
      origin: "kms",
      needs: ["process"],
      knownToFail: ["terminus", "NodeHttpServer"],
      because: "ignores it",
      run: Effect.fnUntraced(function* (server) {
        yield* inFlight(server, "/never")
        yield* server.signal("SIGTERM")
        yield* Effect.sleep(later)
        yield* server.send("SIGINT")
        yield* server.endsInFailure(atOnce)
      })
    },
    {
      name: "A second signal ends the process at once while a clean-up hangs",
      origin: "no suite; http-graceful-shutdown 4.0",
      needs: ["clean-up", "process"],
      settings: { release: "hang" },
      knownToFail: ["NodeHttpServer", "terminus"],
      because: "ignores it",
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* server.printed(/^releasing$/m)
        yield* Effect.sleep(later)
        yield* server.send("SIGTERM")
        yield* server.endsInFailure(atOnce)
      })
    },
    {
      name: "One Ctrl-C that is delivered twice, as wrappers do, cuts nothing",
      origin: "no suite; tsx, concurrently",
      needs: ["process"],
      settings: { echo: true },
      knownToFail: ["http-graceful-shutdown", "close-with-grace"],
      because: "takes it for a second one, and exits",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/slow?ms=700")
        yield* server.signal("SIGINT")
        yield* answered(peer, "slow")
      })
    }
  ]
}
