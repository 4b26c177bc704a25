/**
 * The sockets that systemd gave this process, read from its environment as sd_listen_fds(3) defines it.
 */
import { Config, Data, Effect, Option } from "effect"

/** A socket that listens already. */
export interface Socket {
  /** `FileDescriptorName` of its unit, `unknown` where names were not passed. Several sockets may have the same. */
  readonly name: string
  readonly fd: number
}

/** A variable that cannot be meant. */
export class ActivationError extends Data.TaggedError("ActivationError")<{
  readonly variable: string
  readonly value: string
  readonly problem: string
}> {
  override get message(): string {
    return `${this.variable} is ${JSON.stringify(this.value)}: ${this.problem}`
  }
}

/** Descriptors are ints, and 0, 1 and 2 are taken. */
const first = 3
const most = 2 ** 31 - 1 - first

/** None where this process was not activated. */
export const sockets: Effect.Effect<ReadonlyArray<Socket>, ActivationError | Config.ConfigError> = Effect.gen(
  function* () {
    const read = (variable: string) => Config.option(Config.String(variable))
    const wrong = (variable: string, value: string, problem: string) =>
      new ActivationError({ variable, value, problem })

    const pid = yield* read("LISTEN_PID")
    if (Option.isNone(pid)) return []
    if (!/^\d+$/.test(pid.value)) return yield* wrong("LISTEN_PID", pid.value, "not the id of a process")
    // The variables are inherited, the sockets were meant for an ancestor.
    if (Number(pid.value) !== process.pid) return []

    const count = yield* read("LISTEN_FDS")
    if (Option.isNone(count)) return []
    const length = Number(count.value)
    if (!/^\d+$/.test(count.value) || length === 0 || length > most) {
      return yield* wrong("LISTEN_FDS", count.value, "not a number of descriptors")
    }

    const given = yield* read("LISTEN_FDNAMES")
    const names = Option.isSome(given) ? given.value.split(":") : undefined
    if (names !== undefined && names.length !== length) {
      const problem = `${names.length} names for ${length} descriptors`
      return yield* wrong("LISTEN_FDNAMES", names.join(":"), problem)
    }
    return Array.from({ length }, (_, index) => ({ name: names?.[index] ?? "unknown", fd: first + index }))
  }
)
