/**
 * How long a process lives on after SIGTERM: from the end of the last work in flight, as its client sees it, to the end
 * of the process. Prints a Markdown table. Each figure is the median of three runs, of processes of their own.
 *
 * `npm run bench:shutdown` takes about four minutes.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Option, type Scope } from "effect"
import { connect, webSocket } from "../test/support/peers.ts"
import { beside, type Program, start } from "../test/support/program.ts"
import type { Kind } from "./server.ts"

const kinds: ReadonlyArray<Kind> = ["node:http", "NodeHttpServer", "effect-kms"]
const titles = ["plain `node:http`, `server.close()`", "Effect `NodeHttpServer` + `runMain`", "effect-kms"]
const runs = 3

/** Nobody waits longer than this for the end of a process, or of its clients, in milliseconds. */
const cap = 8000

interface Work {
  /** When it ended; where it has no end of its own, when the signal was sent. */
  readonly endedAt: number
  /** What its client saw beside that. */
  readonly note?: string
}

interface Case {
  readonly name: string
  /** Puts something in flight, sends the signal, and waits for the end of what was in flight. */
  readonly run: (program: Program, port: number) => Effect.Effect<Work, never, Scope.Scope>
}

const signal = (program: Program) => Effect.andThen(program.kill("SIGTERM"), now)
const now = Effect.sync(() => performance.now())
const within = <A>(effect: Effect.Effect<A>) => Effect.timeoutOption(effect, cap)

/** Requests of two seconds, on as many connections that their clients would keep. */
const slow = (count: number): Case["run"] =>
  Effect.fnUntraced(function* (program, port) {
    const peers = yield* Effect.forEach(Array.from({ length: count }), () => connect(port))
    for (const peer of peers) peer.get("/slow")
    yield* program.printed(new RegExp(`(began\\s*){${count}}`))
    yield* signal(program)
    const responses = yield* Effect.forEach(peers, (peer) => peer.response, { concurrency: "unbounded" })
    const headers = new Set(responses.map(({ headers }) => headers["connection"] ?? "none"))
    return { endedAt: yield* now, note: `Connection: ${Array.from(headers).join(", ")}` }
  })

const cases: ReadonlyArray<Case> = [
  {
    name: "keep-alive connection, idle for a second",
    run: Effect.fnUntraced(function* (program, port) {
      const peer = yield* connect(port)
      peer.get("/quick")
      yield* peer.response
      yield* Effect.sleep("1 second")
      return { endedAt: yield* signal(program) }
    })
  },
  { name: "one request of 2 s", run: slow(1) },
  { name: "three requests of 2 s", run: slow(3) },
  {
    name: "endless event stream",
    run: Effect.fnUntraced(function* (program, port) {
      const peer = yield* connect(port)
      peer.get("/events")
      yield* peer.body(20)
      const endedAt = yield* signal(program)
      const ended = yield* within(Effect.raceFirst(Effect.ignoreCause(peer.response), Effect.asVoid(peer.closed)))
      const note = Option.isNone(ended) ? "still open" : peer.responses[0]!.whole ? "clean end" : "cut"
      return { endedAt, note }
    })
  },
  {
    name: "WebSocket",
    run: Effect.fnUntraced(function* (program, port) {
      const peer = yield* webSocket(port, "/socket")
      const endedAt = yield* signal(program)
      const closed = yield* within(peer.closed)
      const note = Option.match(closed, {
        onNone: () => "still open",
        onSome: ({ at, code }) => `closed with ${code} after ${millis(at - endedAt)}`
      })
      return { endedAt, note }
    })
  },
  {
    name: "half a request head",
    run: Effect.fnUntraced(function* (program, port) {
      const peer = yield* connect(port)
      peer.send("GET /quick HTTP/1.1\r\nHost: local")
      yield* Effect.sleep("100 millis")
      return { endedAt: yield* signal(program) }
    })
  },
  {
    name: "64 MB to a slow reader",
    run: Effect.fnUntraced(function* (program, port) {
      const peer = yield* connect(port)
      peer.readSlowly(1024 * 1024, 10)
      peer.get("/big")
      yield* peer.body(1024 * 1024)
      yield* signal(program)
      yield* within(Effect.raceFirst(Effect.ignoreCause(peer.response), Effect.asVoid(peer.closed)))
      const { bytes } = peer.responses[0]!
      return { endedAt: yield* now, note: `${Math.round(bytes / 1024 / 1024)} MB arrived` }
    })
  }
]

interface Run {
  /** Nothing where the process had not ended in time. */
  readonly millis: number | undefined
  readonly code: number | undefined
  readonly note: string | undefined
}

const once = (kind: Kind, { run }: Case): Effect.Effect<Run> =>
  Effect.gen(function* () {
    const program = yield* start(beside(import.meta.url, "server.ts"), { args: [kind] })
    const [, port] = yield* program.printed(/^port (\d+)$/m)
    const { endedAt, note } = yield* run(program, Number(port))
    const left = Math.max(0, endedAt + cap - performance.now())
    const ended = Option.getOrUndefined(yield* Effect.timeoutOption(program.ended, left))
    return { millis: ended && Math.max(0, ended.at - endedAt), code: ended?.code ?? undefined, note }
  }).pipe(Effect.scoped)

/** As often as it takes; what does not end will not the next time either. */
const measure = Effect.fnUntraced(function* (kind: Kind, each: Case) {
  const done: Array<Run> = []
  do done.push(yield* once(kind, each))
  while (done.length < runs && done.at(-1)!.millis !== undefined)
  return done.sort((a, b) => (a.millis ?? cap) - (b.millis ?? cap))[Math.floor(done.length / 2)]!
})

const millis = (n: number): string => `${Math.round(n).toLocaleString("en")} ms`

const row = (cells: ReadonlyArray<string>) => Console.log(`| ${cells.join(" | ")} |`)

const program = Effect.gen(function* () {
  yield* row(["in flight at SIGTERM", ...titles])
  yield* row(["---", ...titles.map(() => "---")])
  const codes = kinds.map(() => new Set<string>())
  for (const each of cases) {
    const cells: Array<string> = []
    for (const [index, kind] of kinds.entries()) {
      const { code, millis: after, note } = yield* measure(kind, each)
      if (code !== undefined) codes[index]!.add(`${code}`)
      const time = after === undefined ? `> ${cap / 1000} s` : millis(after)
      cells.push(note === undefined ? time : `${time}, ${note}`)
    }
    yield* row([each.name, ...cells])
  }
  yield* row(["exit code", ...codes.map((set) => Array.from(set).join(", "))])
})

NodeRuntime.runMain(program)
