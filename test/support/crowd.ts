/**
 * A cluster whose two workers listen on one Unix socket, as Node lets them: through the primary. Told by SIGUSR2, the first
 * of them listens on a path of its own, too, with `exclusive`, then stops both, and goes. Takes the two paths; prints what
 * came of it.
 */
import { Effect } from "effect"
import cluster from "node:cluster"
import { existsSync } from "node:fs"
import { createServer } from "node:net"
import { listen, type Options } from "../../src/internal/bind.ts"

const [shared, own] = process.argv.slice(2) as [string, string]

const bind = (options: Options) =>
  listen(
    createServer((socket) => void socket.end("worker")),
    options
  )

const say = (text: string) => Effect.sync(() => void process.send!(text))

const worker = Effect.gen(function* () {
  yield* say((yield* Effect.flip(bind({ path: shared, mode: 0o600 }))).message)
  const together = yield* bind({ path: shared })
  yield* say("listens")
  yield* Effect.callback<void>((resume) => void process.once("message", () => resume(Effect.void)))
  const alone = yield* bind({ path: own, exclusive: true, mode: 0o600 })
  yield* say(`has a path of its own: ${existsSync(own)}`)
  alone.stop()
  together.stop()
  yield* say(`stopped: ${existsSync(own)}`)
  process.disconnect!()
})

if (cluster.isWorker) {
  Effect.runFork(worker)
} else {
  const workers = [cluster.fork(), cluster.fork()]
  for (const each of workers) each.on("message", (text: string) => console.log(`${each.id}: ${text}`))
  process.on("SIGUSR2", () => workers.shift()!.send("on"))
}
