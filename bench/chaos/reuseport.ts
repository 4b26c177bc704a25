/**
 * Two servers on one port with `reusePort`, and no balancer: the kernel gives each new connection to one of the listening
 * sockets, by a hash of its addresses. Restarted in turn; sometimes the next one starts before the old one is told to stop.
 *
 * The kernel knows nothing of a server that leaves. It goes on giving connections to its socket until that is closed, the
 * lame duck included, and what is in the socket's accept queue then is reset: a server that finds its queue empty and closes
 * it has no means to keep another connection from coming in between (accept(2) and close(2) are two calls). With
 * `net.ipv4.tcp_migrate_req` (Linux 5.14) the kernel gives those to another socket of the group instead. Both are measured:
 * the second in a network namespace of its own, so that no setting of the machine is touched.
 *
 * `far` clients are 40 ms away and pause for less than `quietPeriod` or for more. After a longer pause, what they write to a
 * connection in the moment in which its server closes it no server can see. A lame duck longer than their pause is what
 * avoids it. After a shorter one nothing may be lost.
 */
import { Data, Effect } from "effect"
import { spawn } from "node:child_process"
import { beside, type Options, start } from "../../test/support/program.ts"
import type { Proxying } from "../../test/support/proxy.ts"
import type { Failure } from "./ledger.ts"
import { clients, type Load } from "./load.ts"
import * as Random from "./random.ts"
import { type Ground, type Life, plan, type Rolled, roll } from "./rolling.ts"
import type { Scenario } from "./scenario.ts"

export interface Reuseport {
  readonly seed: number
  readonly restarts: number
  /** Sets `net.ipv4.tcp_migrate_req`, in a network namespace of its own. Needs root. */
  readonly migrate: boolean
  /** Those of the servers, one of which each gets. */
  readonly lameDucks?: readonly [number, ...Array<number>] | undefined
  readonly clients?: Load["clients"] | undefined
  /** In milliseconds; default that of the library. */
  readonly quietPeriod?: number | undefined
  /** Spoils the servers, to see that the clients count. */
  readonly breakage?: "exits" | undefined
}

/** Longer than the pauses of the far clients, and what they have in flight meanwhile. */
export const longLameDuck = 2000
const delay = 40
/** As much as that may be longer, each way: a timer of the proxy, and the loop of who reads, come late. */
const late = 20
/** The default of the library. */
const defaultQuietPeriod = 500

export const reuseport = Effect.fnUntraced(function* (
  options: Reuseport,
  progress: (done: number) => void
): Effect.fn.Return<Scenario, unknown> {
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const within = options.migrate ? yield* namespace : undefined
      const host = "127.0.0.1"
      let ports: readonly [number, number, number] = [0, 0, 0]
      const ground: Ground = {
        serving: () => ({ host, ports, reusePort: true, quietPeriod: options.quietPeriod, breakage: options.breakage }),
        options: within,
        listening: (_, [http, http2]) => {
          ports = [http, http2, 0]
        }
      }
      const steps = plan(Random.make(options.seed), options.restarts, {
        lameDucks: options.lameDucks ?? [0, longLameDuck],
        surges: true
      })
      const begin = Effect.gen(function* () {
        const proxying = JSON.stringify({ port: ports[0], delay, keepsPorts: true } satisfies Proxying)
        const proxy = yield* start(beside(import.meta.url, "../../test/support/proxy.ts"), {
          ...within,
          args: [proxying]
        })
        const far = { host, port: Number((yield* proxy.printed(/^port (\d+)$/m))[1]) }
        return {
          seed: options.seed,
          http: { host, port: ports[0] },
          http2: { host, port: ports[1] },
          far,
          clients: options.clients ?? { ...clients, "far, in use": 6, far: 6 }
        }
      })
      const rolled = yield* roll(ground, steps, begin, progress)
      return {
        ...rolled,
        name: `one port, reusePort, tcp_migrate_req ${options.migrate ? 1 : 0}`,
        restarts: options.restarts,
        notes: byLameDuck(rolled, options.restarts),
        explain: (failure, rolled) => explain(failure, rolled, options)
      } satisfies Scenario
    })
  )
})

class NoNamespace extends Data.TaggedError("NoNamespace")<{ readonly message: string }> {}

/** A network namespace with its loopback up, as long as the scope is open. Gives the command that runs a program in it. */
const namespace = Effect.gen(function* () {
  const script = "ip link set lo up && sysctl -qw net.ipv4.tcp_migrate_req=1 && echo ready && exec cat"
  const holder = yield* Effect.acquireRelease(
    Effect.sync(() => spawn("unshare", ["--net", "sh", "-c", script], { stdio: ["pipe", "pipe", "inherit"] })),
    (holder) => Effect.sync(() => holder.stdin.end())
  )
  yield* Effect.callback<void, NoNamespace>((resume) => {
    holder.stdout.once("data", () => resume(Effect.void))
    holder.once("error", ({ message }) => resume(Effect.fail(new NoNamespace({ message }))))
    holder.once("exit", (code) => resume(Effect.fail(new NoNamespace({ message: `unshare ended with ${code}` }))))
  })
  return {
    command: ["nsenter", "--target", String(holder.pid), "--net", process.execPath]
  } satisfies Pick<Options, "command">
})

/** What no server can avoid, where everything that is known of the failure says that it was this. */
const explain = (
  failure: Failure,
  { lives }: Rolled,
  { migrate, quietPeriod = defaultQuietPeriod }: Reuseport
): string | undefined => {
  const wasReset = migrate ? undefined : reset(failure, lives)
  return wasReset ?? (failure.kind === "far" ? crossed(failure, lives, quietPeriod) : undefined)
}

/** A new connection was in the accept queue of a socket as it closed. */
const reset = (failure: Failure, lives: ReadonlyArray<Life>): string | undefined => {
  // What was accepted is known of the last seconds alone.
  if (failure.at - failure.opened > 2500) return undefined
  if (failure.port === undefined || failure.idle !== undefined || !/ECONNRESET|1006|socket hang up/.test(failure.how))
    return undefined
  // It was opened before a listening socket closed, and failed as it did: the server says so a moment later, as it gets to it.
  const closing = lives.some(
    ({ draining }) => draining !== undefined && failure.opened < draining && Math.abs(failure.at - draining) < 100
  )
  // None of the servers has ever seen it.
  const seen = lives.some(
    ({ told }) =>
      told?.accepted.some(([port, at]) => port === failure.port && at > failure.opened - 5 && at < failure.at + 5) ===
      true
  )
  return closing && !seen ? "never accepted: in the accept queue of a socket that closed" : undefined
}

/** A request and the end of an idle connection passed each other on the way. */
const crossed = (
  { idle, how, written }: Failure,
  lives: ReadonlyArray<Life>,
  quietPeriod: number
): string | undefined => {
  if (idle === undefined || idle < quietPeriod - 2 * (delay + late) || !/ended|closed|ECONNRESET|EPIPE/.test(how))
    return undefined
  // Without a lame duck, closed as the drain began or while it lasted, when the request was less than a way from arriving.
  const found = lives.find(
    ({ draining, ended, lameDuck }) =>
      lameDuck === 0 &&
      draining !== undefined &&
      written > draining - delay - late &&
      written < (ended ?? draining) + delay + late
  )
  return found === undefined
    ? undefined
    : "crossed with the end of a connection idle for longer than quietPeriod, no lame duck"
}

/** How many failures there were in the restarts with each lame duck: those of the last server to have been told to stop. */
const byLameDuck = ({ failures, lives }: Rolled, restarts: number): ReadonlyArray<string> => {
  // The last two had no clients any more.
  const stops = lives.slice(0, restarts)
  const lameDucks = Array.from(new Set(stops.map(({ lameDuck }) => lameDuck))).sort((a, b) => a - b)
  return lameDucks.map((lameDuck) => {
    const failed = failures.filter(({ at }) => {
      const before = stops.filter(({ signalled }) => signalled! <= at).sort((a, b) => a.signalled! - b.signalled!)
      return before.at(-1)?.lameDuck === lameDuck
    })
    const far = failed.filter(({ kind }) => kind === "far").length
    const count = stops.filter((life) => life.lameDuck === lameDuck).length
    return `${count} stops with ${lameDuck === 0 ? "no lame duck" : `a lame duck of ${lameDuck} ms`}: ${failed.length} failures, ${far} of them of far clients`
  })
}
