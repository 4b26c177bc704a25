/**
 * The adapter: a subject as a process of its own, of which a case sees the address, the output and the end, and to which it
 * sends signals. Nothing else of a subject is visible.
 */
import { Effect, type Scope } from "effect"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isRefused } from "../../test/support/peers.ts"
import { type Ended, type Program, start } from "../../test/support/program.ts"
import { type Settings, toEnv } from "./servers/settings.ts"
import type { Subject } from "./subject.ts"

/** What a case fails with. */
export const fail = (message: string): Effect.Effect<never> => Effect.die(new Error(message))

export const expect = (holds: boolean, message: string): Effect.Effect<void> => (holds ? Effect.void : fail(message))

/** Bounds a wait on a subject: one that does not come is a failure with these words. */
export const within =
  (millis: number, what: string) =>
  <A, R>(effect: Effect.Effect<A, never, R>): Effect.Effect<A, never, R> =>
    Effect.timeoutOrElse(effect, { duration: millis, orElse: () => fail(`${what}: not within ${millis} ms`) })

/**
 * How long a process may live on where nothing is in flight any more. Long enough for a slow machine and for peers that are
 * given a second to finish what they have begun, and shorter than Node's keep-alive timeout of 5 s.
 */
export const soon = 4000

/** The same where a limit of a second and a half was set: that, a second to clean up, and what a busy machine takes. */
export const gone = 5000

/** Half of what a run costs is compiling the same programs again and again; Node keeps the result for all subjects alike. */
const environment = (settings: Partial<Settings>): Record<string, string> => ({
  ...toEnv(settings),
  NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? join(tmpdir(), "effect-kms-conformance")
})

export class Server {
  readonly subject: Subject
  readonly program: Program
  readonly port: number
  readonly settings: Partial<Settings>

  constructor(subject: Subject, program: Program, port: number, settings: Partial<Settings>) {
    this.subject = subject
    this.program = program
    this.port = port
    this.settings = settings
  }

  /** Waits for a line that it prints. */
  printed(pattern: RegExp): Effect.Effect<RegExpMatchArray> {
    return within(10_000, `it prints ${pattern}`)(this.program.printed(pattern))
  }

  /** Handlers of so many requests have begun. */
  began(path: string, count = 1): Effect.Effect<unknown> {
    return this.printed(new RegExp(`^began ${path} ${count}$`, "m"))
  }

  /** The port of another listener of it. */
  portOf(name: string): Effect.Effect<number> {
    return Effect.map(this.printed(new RegExp(`^${name} (\\d+)$`, "m")), ([, port]) => Number(port))
  }

  send(signal: NodeJS.Signals): Effect.Effect<void> {
    // It may have ended.
    return Effect.ignoreCause(this.program.kill(signal))
  }

  /** Sends a signal, and waits until its handlers run. */
  signal(signal: NodeJS.Signals = "SIGTERM"): Effect.Effect<unknown> {
    return Effect.andThen(this.send(signal), this.printed(new RegExp(`^heard ${signal}$`, "m")))
  }

  /** It ends by itself. */
  ends(millis = soon): Effect.Effect<Ended> {
    return within(millis, "the process ends")(this.program.ended)
  }

  /** It ends, and says that nothing went wrong. */
  endsCleanly(millis = soon): Effect.Effect<Ended> {
    return Effect.tap(this.ends(millis), ({ code, signal }) =>
      expect(code === this.subject.cleanExit, `it ended with ${signal ?? code}`)
    )
  }

  /** It ends, and whoever started it can tell that something went wrong. */
  endsInFailure(millis = soon): Effect.Effect<Ended> {
    return Effect.tap(this.ends(millis), ({ code, signal }) =>
      expect(
        code !== this.subject.cleanExit && code !== 0,
        `it ended with ${signal ?? code}, as if nothing had happened`
      )
    )
  }

  count(pattern: RegExp): number {
    return Array.from(this.program.output().matchAll(pattern)).length
  }

  /** The same program once more, on the port that this one has. */
  get rival(): Effect.Effect<Program, never, Scope.Scope> {
    return start(this.subject.file, {
      args: this.subject.args ?? [],
      env: toEnv({ ...this.settings, port: this.port })
    })
  }

  /** New connections are refused before `end` completes. */
  refusesBefore<A>(end: Effect.Effect<A>, port = this.port): Effect.Effect<void> {
    const refused = Effect.gen(function* () {
      while (!(yield* isRefused(port))) yield* Effect.sleep(20)
      return true
    })
    return Effect.raceFirst(refused, Effect.as(end, false)).pipe(
      Effect.flatMap((refused) => expect(refused, "it went on accepting connections"))
    )
  }
}

export const launch = (subject: Subject, settings: Partial<Settings>): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function* () {
    const program = yield* start(subject.file, { args: subject.args ?? [], env: environment(settings) })
    const [, port] = yield* within(15_000, "it starts")(program.printed(/^port (\d+)$/m))
    if (settings.second === true) yield* within(15_000, "its second listener starts")(program.printed(/^second \d+$/m))
    return new Server(subject, program, Number(port), settings)
  })
