/**
 * From the end of the last work in flight to the end of the process.
 *
 * Work that ends by itself (a request, a stream) ends for its client with the last byte of its answer. What has no end of its
 * own (an idle connection, a session, a WebSocket) ends with the signal. The end of the process is when its parent hears of
 * it. The clients are a process of their own and leave when they are told to.
 *
 * Connections that are to be idle have been for a second at the signal: longer than `quietPeriod`, which effect-kms waits for
 * on purpose after the last answer.
 */
import { Console, Effect, Option } from "effect"
import { clock } from "./clock.ts"
import type { Crowd } from "./crowd.ts"
import { type Kind, peers, type Protocol } from "./kinds.ts"
import { crowd, head, inRounds, type Measured, number, of, type Options, paired, row, serve, told } from "./run.ts"
import type { Median } from "./stats.ts"

interface Case {
  readonly name: string
  readonly protocol: Protocol
  readonly clients: Omit<Crowd, "port">
  /** The program that it is held against. */
  readonly base: Kind
  /** What Effect's own server needs for it. */
  readonly effect: Kind
  /** Flags of Node for the server. */
  readonly flags?: ReadonlyArray<string>
  /** Bytes of garbage that the last round makes before, and the others their share of. */
  readonly garbage?: number
}

const http = { protocol: "http", base: "node:http", effect: "NodeHttpServer" } as const
const h2c = { ...http, protocol: "h2c" } as const

const slow = (count: number): Case => ({
  ...http,
  name: requests(count),
  clients: { what: "slow", count, leaves: true }
})
const requests = (count: number) => (count === 1 ? "one request" : `${number(count, 0)} requests`)
const idle = (count: number): Case => ({
  ...http,
  name: `${number(count, 0)} idle connections`,
  clients: { what: "idle", count }
})
const sockets = (count: number): Case => ({
  ...http,
  base: "node:http, 1001",
  effect: "NodeHttpServer, 0 s",
  name: `${number(count, 0)} WebSockets`,
  clients: { what: "socket", count }
})
const sessions = (count: number): Case => ({
  ...h2c,
  name: `${number(count, 0)} idle HTTP/2 sessions`,
  clients: { what: "session", count }
})

const cases: ReadonlyArray<Case> = [
  slow(1),
  slow(1000),
  idle(10_000),
  sockets(5000),
  sessions(1000),
  { ...h2c, name: "1,000 HTTP/2 sessions with a stream each", clients: { what: "stream", count: 1000 } }
]

/** A client that keeps its connection unless it is told not to: what most of them do. */
const kept: Case = {
  ...http,
  name: "one request, its client leaves only when it is told to",
  clients: { what: "slow", count: 1 }
}

/** The rows of the table of the peers. */
const everyone: ReadonlyArray<Kind> = ["effect-kms", "node:http", "NodeHttpServer", ...peers]

/** Room for all that is made for them: nothing is collected from the signal on. */
const roomy: Case = {
  ...slow(1000),
  name: "1,000 requests, no garbage collected",
  flags: ["--min-semi-space-size=64", "--max-semi-space-size=64"]
}

/**
 * What has run for a while is somewhere between two collections when it is told to stop. V8 collects the young generation
 * once some 26 MB have been made, as Node comes: each round starts from another point of that.
 */
const anywhere: Case = { ...slow(1000), name: "1,000 requests, the collector at any point", garbage: 26e6 }

const growing: ReadonlyArray<Case> = [
  ...[10, 100].map(slow),
  roomy,
  anywhere,
  ...[10, 100, 1000].map(idle),
  ...[50, 500].map(sockets),
  ...[10, 100].map(sessions)
]

/** Nobody waits longer than this, in milliseconds. */
const cap = 8000

interface Ended {
  /** Nothing where the process had to be killed. */
  readonly millis: number | undefined
  readonly code: number | undefined
  /** CPU time of the process from the signal on, in milliseconds. */
  readonly cpu: number | undefined
  /** What its clients were told. */
  readonly told: string
}

/** `point` is a number from 0 to 1: where the round is among all of them. */
const once = (kind: Kind, { clients, flags, garbage = 0, protocol }: Case, point: number): Effect.Effect<Ended> =>
  Effect.gen(function* () {
    const keepAliveTimeout = clients.what === "idle" ? { keepAliveTimeout: 120_000 } : {}
    const { port, program, usage } = yield* serve(
      { kind, protocol, slow: clients.count, garbage: garbage * point, ...keepAliveTimeout },
      { flags }
    )
    const { ended } = yield* crowd({ ...clients, port })
    const ends = clients.what === "slow" || clients.what === "stream"
    if (ends) yield* program.printed(/^began$/m)
    else yield* Effect.sleep("1 second")
    const { cpu } = yield* usage
    const skew = clock() - performance.now()
    const signalled = clock()
    yield* program.kill("SIGTERM")
    const told = clients.what === "idle" || clients.what === "session" ? undefined : ended
    const ending = told === undefined ? undefined : Option.getOrUndefined(yield* Effect.timeoutOption(told, cap))
    const from = ends ? (ending?.at ?? signalled) : signalled
    const gone = Option.getOrUndefined(yield* Effect.timeoutOption(program.ended, cap))
    const spent = /^spent (.*)$/m.exec(program.output())?.[1]
    const words = Object.entries(ending?.told ?? {}).map(([how, count]) => `${count} ${how}`)
    return {
      millis: gone && gone.at + skew - from,
      code: gone?.code ?? undefined,
      cpu: spent === undefined ? undefined : Number(spent) - cpu,
      told: words.join(", ")
    }
  }).pipe(Effect.scoped)

/** What `--case` may choose of. */
export const names: ReadonlyArray<string> = [kept, ...cases, ...growing].map(({ name }) => name)

const chosen = (all: ReadonlyArray<Case>, { cases }: Options): ReadonlyArray<Case> =>
  all.filter(({ name }) => cases.length === 0 || cases.some((part) => isIn(name, part)))

/** Whether a case was meant: by its whole name, or by a part of it. */
const isIn = (name: string, part: string): boolean => (names.includes(part) ? name === part : name.includes(part))

/** Measured in every round, but where it has not ended in time once: it will not the next time either. */
const measure = Effect.fnUntraced(function* (options: Options, each: Case, kinds: ReadonlyArray<Kind>) {
  const hopeless = new Set<string>()
  return yield* inRounds<Ended>(options, kinds, (kind, round) =>
    Effect.gen(function* () {
      if (hopeless.has(kind)) return undefined
      const ended = yield* once(kind as Kind, each, round / options.rounds)
      if (ended.millis === undefined) hopeless.add(kind)
      return ended
    })
  )
})

/** Within 5 ms of its base, or 10 % of that, whichever is more. */
const within = (extra: Median, base: Median): string => {
  const allowed = Math.max(5, base.median / 10)
  const by = `${number(allowed, 1)} ms`
  return extra.high <= allowed
    ? `met (${by})`
    : extra.low > allowed
      ? `**missed** (${by})`
      : extra.median <= allowed
        ? `met by the median (${by})`
        : `missed by the median (${by})`
}

const millis = ({ millis }: Ended): number => millis ?? Number.POSITIVE_INFINITY

const time = (measured: Measured<Ended>, kind: Kind): string => {
  const ends = measured.get(kind)!.filter((ended) => ended !== undefined)
  const last = ends.at(-1)
  if (last === undefined) return ""
  return last.millis === undefined ? `> ${cap / 1000} s` : told(of(measured, kind, millis), 0, " ms")
}

const clientsOf = (measured: Measured<Ended>, kind: Kind): string => measured.get(kind)!.at(-1)?.told ?? ""

export const exit = Effect.fnUntraced(function* (options: Options) {
  yield* Console.log(`\n## From the end of the last work to the end of the process\n`)
  const some = chosen([kept, ...cases], options)
  const spent: Array<ReadonlyArray<string>> = []
  const columns = new Map<Kind, Array<string>>(everyone.map((kind) => [kind, []]))
  yield* head(["in flight at SIGTERM", "effect-kms", "`node:http`", "`NodeHttpServer`", "over `node:http`", "target"])
  for (const each of some) {
    const { base, effect, name } = each
    const measured = yield* measure(options, each, Array.from(new Set([base, effect, ...everyone])))
    for (const kind of everyone) {
      columns.get(kind)!.push([time(measured, kind), clientsOf(measured, kind)].filter(Boolean).join("<br>"))
    }
    if (each === kept) continue
    const extra = paired(measured, "effect-kms", base, (a, b) => millis(a) - millis(b))
    const three = ["effect-kms", base, effect] as const
    const times = three.map((kind) => time(measured, kind))
    yield* row([name, ...times, told(extra, 1, " ms"), within(extra, of(measured, base, millis))])
    spent.push([name, ...three.map((kind) => told(of(measured, kind, spentBy), 0, " ms"))])
  }
  yield* Console.log(`\nCPU time of the process from the signal to its end:\n`)
  yield* head(["in flight at SIGTERM", "effect-kms", "`node:http`", "`NodeHttpServer`"])
  for (const cells of spent) yield* row(cells)
  yield* Console.log(`\nBeside every peer:\n`)
  yield* head(["", ...some.map(({ name }) => name)])
  for (const [kind, cells] of columns) yield* row([kind, ...cells])
})

const spentBy = ({ cpu }: Ended): number => cpu ?? Number.NaN

/** How it grows with the number. */
export const scale = Effect.fnUntraced(function* (options: Options) {
  yield* Console.log(`\n## How that grows with their number\n`)
  yield* head(["in flight at SIGTERM", "effect-kms", "`node:http`", "over `node:http`"])
  for (const each of chosen(growing, options)) {
    const measured = yield* measure(options, each, ["effect-kms", each.base])
    const extra = paired(measured, "effect-kms", each.base, (a, b) => millis(a) - millis(b))
    yield* row([each.name, time(measured, "effect-kms"), time(measured, each.base), told(extra, 1, " ms")])
  }
})
