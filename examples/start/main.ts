// Shows that nothing is lost: a real server gets SIGTERM while clients of every kind are busy on each of its listeners.
// Run it with `npm start`; with KMS_DEMO_BREAK=1 the same application runs without effect-kms, as a proof of the check.
// You should see, after about four seconds, what every client saw, and that the server ended right after the last.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Fiber, FileSystem, Latch, Stream } from "effect"
import { ChildProcess, type ChildProcessSpawner } from "effect/process"
import { randomUUID } from "node:crypto"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { CronJob } from "./cron.ts"
import { type Ended, now, type Report } from "./report.ts"
import { table, wrapped } from "./table.ts"

const application = process.env["KMS_DEMO_BREAK"] === "1" ? "without-kms.ts" : "../11-everything/main.ts"

/** How many addresses it says that it listens on. */
const listeners = 4

/** The server may take this long to end after its last client, in milliseconds. It takes some 20; a busy machine, more. */
const limit = 4000

const nothing = 'Nothing was lost. "Right": the SHA-256 of what came is that of what had to come.'

/** On a terminal the server itself shows how far it is, in a line that other lines have to make room for. */
const onTerminal = process.stderr.isTTY === true

const say = (text: string) => Console.log(onTerminal ? `\r\u001B[K${text}` : text)

/** What the server has printed: on a terminal without its report as JSON, since the table is there. */
const relay = (line: string) => {
  const short = line.replace(/ INFO \(#\d+\):/, "")
  return say(wrapped(onTerminal ? short.replace(/ \{"reason":.*$/, "") : short, "server | "))
}

/** What all processes make their content from. */
process.env["KMS_DEMO_SEED"] = randomUUID()

/** Starts another program. It ends with the scope at the latest. */
const start = (file: string, args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  ChildProcess.make(process.execPath, [...process.execArgv, fileURLToPath(new URL(file, import.meta.url)), ...args], {
    env,
    extendEnv: true,
    stderr: "inherit",
    forceKillAfter: "1 second"
  })

const lines = (child: ChildProcessSpawner.ChildProcessHandle) => child.stdout.pipe(Stream.decodeText, Stream.splitLines)

const program = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const directory = yield* fs.makeTempDirectoryScoped({ prefix: "effect-kms-" })
  const ports = { PORT: "0", TCP_PORT: "0", RPC_PORT: "0" }
  const server = yield* start(application, [], { ...ports, SOCKET: join(directory, "socket"), REPORTS: directory })
  const serverEnd = yield* Effect.forkScoped(Effect.map(server.exitCode, (code) => ({ code, at: now() })))

  const addresses: Array<string> = []
  const listening = Latch.makeUnsafe()
  const cron = new CronJob()
  const output = yield* lines(server).pipe(
    Stream.tap(relay),
    Stream.runForEach((line) =>
      Effect.sync(() => {
        cron.hear(line)
        const [, address] = /Listening on (\S+)/.exec(line) ?? []
        if (address !== undefined) addresses.push(address)
        if (addresses.length === listeners) listening.openUnsafe()
      })
    ),
    Effect.forkScoped
  )

  yield* listening.await
  const clients = yield* start("clients.ts", addresses)
  const underWay = Latch.makeUnsafe()
  const signal = yield* Effect.gen(function* () {
    yield* underWay.await
    yield* cron.writing.await
    process.kill(server.pid, "SIGTERM")
    return { at: now(), report: cron.latest }
  }).pipe(Effect.forkScoped)

  const ended: Array<Ended> = []
  yield* Stream.runForEach(lines(clients), (line) =>
    Effect.sync(() => {
      const report = JSON.parse(line) as Report
      if (report._tag === "Ended") ended.push(report)
      else underWay.openUnsafe()
    })
  )
  const clientsCode = yield* clients.exitCode
  const { at: signalled, report } = yield* Fiber.join(signal)
  const { at, code } = yield* Fiber.join(serverEnd)
  yield* Fiber.join(output)
  ended.push(yield* cron.outcome(directory, report, at))

  ended.sort((a, b) => a.at - b.at)
  const rows = ended.map(({ at, client, lost, saw }) => {
    const outcome = at < signalled ? "TOO EARLY" : lost ? "LOST" : "ok"
    return { client, millis: Math.round(at - signalled), outcome, saw } as const
  })
  yield* say(`\n${table(rows)}\n`)
  const lost = rows.filter(({ outcome }) => outcome !== "ok").length
  const after = Math.round(at - ended.at(-1)!.at)
  const order = after < 0 ? `${-after} ms before` : `${after} ms after`
  yield* Console.log(`The server ended ${order} the last of them, with exit code ${code}.`)
  yield* Console.log(lost === 0 ? nothing : `${lost} of ${rows.length} LOST something.`)
  return lost === 0 && clientsCode === 0 && code === 0 && after < limit
})

program.pipe(
  Effect.scoped,
  Effect.timeoutOrElse({ duration: "1 minute", orElse: () => Effect.as(Console.log("It took too long."), false) }),
  Effect.map((good) => {
    process.exitCode = good ? 0 : 1
  }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
