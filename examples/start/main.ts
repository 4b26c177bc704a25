// Shows that nothing is lost: a real server gets SIGTERM while eight kinds of client in another process are busy on it.
// Run it with `npm start`; with KMS_DEMO_BREAK=1 the server destroys its connections instead, as a proof of the check.
// You should see, after about three seconds, what every client saw, and that the server ended right after the last.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Deferred, Effect, Fiber, Stream } from "effect"
import { ChildProcess, type ChildProcessSpawner } from "effect/process"
import { randomUUID } from "node:crypto"
import { fileURLToPath } from "node:url"
import { type Ended, now, type Report } from "./report.ts"

/** The server may take this long to end after its last client, in milliseconds. */
const limit = 1000

/** Starts a program beside this one. It ends with the scope at the latest. */
const start = (file: string, ...args: ReadonlyArray<string>) =>
  ChildProcess.make(process.execPath, [...process.execArgv, fileURLToPath(new URL(file, import.meta.url)), ...args], {
    env: { KMS_DEMO_SEED: seed },
    extendEnv: true,
    stderr: "inherit",
    forceKillAfter: "1 second"
  })

/** What both sides make their content from. */
const seed = randomUUID()

const lines = (child: ChildProcessSpawner.ChildProcessHandle) => child.stdout.pipe(Stream.decodeText, Stream.splitLines)

const program = Effect.gen(function* () {
  const server = yield* start("server.ts")
  const address = yield* Deferred.make<string>()
  const output = yield* lines(server).pipe(
    Stream.tap((line) => Console.log(`server | ${line}`)),
    Stream.runForEach((line) => {
      const [, listening] = /Listening on (\S+)/.exec(line) ?? []
      return listening === undefined ? Effect.void : Deferred.succeed(address, listening)
    }),
    Effect.forkScoped
  )
  const serverEnd = yield* Effect.forkScoped(Effect.map(server.exitCode, (code) => ({ code, at: now() })))

  const clients = yield* start("clients.ts", yield* Deferred.await(address))
  let signalled = Number.POSITIVE_INFINITY
  const ended: Array<Ended> = []
  yield* Stream.runForEach(lines(clients), (line) =>
    Effect.sync(() => {
      const report = JSON.parse(line) as Report
      if (report._tag === "Ended") return ended.push(report)
      signalled = now()
      return process.kill(server.pid, "SIGTERM")
    })
  )
  const clientsCode = yield* clients.exitCode
  const { at, code } = yield* Fiber.join(serverEnd)
  yield* Fiber.join(output)

  const rows = ended.map((client) => {
    const outcome = client.at < signalled ? "TOO EARLY" : client.lost ? "LOST" : "ok"
    return { ...client, outcome, millis: Math.round(client.at - signalled) }
  })
  yield* Console.log(`\n${"client".padEnd(20)}${"after SIGTERM".padEnd(16)}${"".padEnd(6)}saw`)
  for (const { client, millis, outcome, saw } of rows) {
    yield* Console.log(`${client.padEnd(20)}${`${millis} ms`.padStart(10).padEnd(16)}${outcome.padEnd(6)}${saw}`)
  }
  const lost = rows.filter(({ outcome }) => outcome !== "ok").length
  const after = Math.round(at - Math.max(...ended.map((client) => client.at)))
  const order = after < 0 ? `${-after} ms before` : `${after} ms after`
  yield* Console.log(`\nThe server ended ${order} the last of them, with exit code ${code}.`)
  yield* Console.log(lost === 0 ? "Nothing was lost." : `${lost} of ${rows.length} clients LOST something.`)
  return lost === 0 && clientsCode === 0 && code === 0 && after < limit
})

program.pipe(
  Effect.scoped,
  Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.as(Console.log("It took too long."), false) }),
  Effect.map((good) => {
    process.exitCode = good ? 0 : 1
  }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
