/** What is released when, what becomes of clean-ups that go wrong, and of the last words. */
import { Effect } from "effect"
import { answered, type Group, inFlight } from "../case.ts"
import { floodLines } from "../servers/settings.ts"
import { expect, gone } from "../server.ts"

export const cleanUps: Group = {
  name: "Clean-up and output",
  cases: [
    {
      name: "A request in flight finds the database open",
      origin: "nest, Effect #6181; fx",
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/db?ms=600")
        yield* server.signal()
        yield* answered(peer, "open")
        peer.socket.destroy()
        yield* server.ends()
        const output = server.program.output()
        yield* expect(
          output.indexOf("answered /db") < output.indexOf("releasing"),
          "the clean-up began before the request was answered"
        )
      })
    },
    {
      name: "Resources are released in reverse, each once, though the signal comes twice",
      origin: "fx, Spring, fastify",
      settings: { echo: true },
      needs: ["clean-ups", "process"],
      knownToFail: ["close-with-grace"],
      because: "takes the echo of the signal for a second one, and exits",
      run: Effect.fnUntraced(function* (server) {
        yield* inFlight(server, "/slow?ms=700").pipe(
          Effect.tap((peer) => Effect.sync(() => peer.socket.once("data", () => peer.socket.destroy())))
        )
        yield* server.signal()
        yield* server.ends()
        const released = Array.from(server.program.output().matchAll(/^released (\w+)$/gm), ([, name]) => name)
        yield* expect(released.join() === "cache,database", `released: ${released.join(", ")}`)
      })
    },
    {
      name: "A clean-up that hangs does not outlive the limit, and shows in the exit code",
      origin: "close-with-grace; probe",
      settings: { grace: 1500, release: "hang" },
      needs: ["clean-up"],
      knownToFail: ["NodeHttpServer", "terminus", "http-graceful-shutdown", "fastify"],
      because: "bounds sockets, not clean-ups",
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* server.endsInFailure(gone)
      })
    },
    {
      name: "A clean-up that hangs with an empty event loop shows in the exit code",
      origin: "no suite; probe",
      settings: { grace: 1500, release: "stall" },
      needs: ["clean-up"],
      knownToFail: ["NodeHttpServer", "terminus", "http-graceful-shutdown", "fastify"],
      because: "ends with 0 as soon as the event loop is empty, or never",
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* server.endsInFailure(gone)
      })
    },
    {
      name: "A clean-up that fails shows in the exit code",
      origin: "close-with-grace, http-graceful-shutdown, fx",
      settings: { release: "fail" },
      needs: ["clean-up"],
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* server.endsInFailure()
      })
    },
    {
      name: "Clean-ups behind one that fails run all the same",
      origin: "fx, lightship",
      settings: { release: "fail" },
      needs: ["clean-ups"],
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* server.ends()
        yield* expect(server.count(/^released database$/gm) === 1, "the database was not released")
      })
    },
    {
      name: "4 MB of last words get into a pipe to the last line",
      origin: "exit-hook; no suite",
      settings: { release: "flood" },
      knownToFail: ["NodeHttpServer", "http-graceful-shutdown", "close-with-grace", "terminus"],
      because: "exits before the pipe has taken what was written",
      run: Effect.fnUntraced(function* (server) {
        yield* server.signal()
        yield* server.ends(6000)
        const lines = server.count(/^flood \d+ x{90}$/gm)
        yield* expect(lines === floodLines, `${lines} of ${floodLines} lines came`)
      })
    },
    {
      name: "Work that no client waits for is finished first",
      origin: "kms",
      needs: ["background"],
      run: Effect.fnUntraced(function* (server) {
        const peer = yield* inFlight(server, "/job")
        yield* answered(peer, "accepted")
        yield* server.signal()
        yield* server.endsCleanly()
        const output = server.program.output()
        yield* expect(output.includes("job done"), "the job was cut")
        yield* expect(output.indexOf("job done") < output.indexOf("releasing"), "the clean-up did not wait for it")
      })
    }
  ]
}
