/**
 * What is promised of the end of a process, held against what was seen in one round.
 */
import { holdsOn } from "./bad-peers.ts"
import type { Counts, Failure } from "./ledger.ts"
import { forceTimeout, isSecond, type Round, timeout } from "./round.ts"

export interface Seen {
  readonly output: string
  /** Nothing where it had to be killed. */
  readonly exit: { readonly code: number | null; readonly signal: NodeJS.Signals | null } | undefined
  /** What is known of its main thread where it had to be killed. */
  readonly standstill: string | undefined
  /** From the beginning of the shutdown, as far as it can be known from outside, to the end of the process. */
  readonly millis: number
  /** From the second signal to the end; nothing where the process had gone by then, or there was none. */
  readonly afterSecond: number | undefined
  readonly counts: Counts
  readonly failures: ReadonlyArray<Failure>
}

/** How much later than promised a process may be seen to be gone: this is measured from outside, on a busy machine. */
export const slack = 1000

/** A signal that a process lives on with for so long it has not heeded. */
const heeding = 1000

/** How a round ended, for the table. */
export type Ending = "0" | "1" | "1, at once" | "before it had begun"

export interface Verdict {
  readonly ending: Ending
  readonly problems: ReadonlyArray<string>
}

/** `late` is how much later a process may be seen to be gone, beside `slack`, in milliseconds. */
export const verdict = (round: Round, seen: Seen, late = 0): Verdict => {
  const { exit, output } = seen
  const acquired = names(output, "+")
  if (exit === undefined) return { ending: "1", problems: [`the process did not end: ${seen.standstill}`] }
  if (exit.code === null || acquired.length === 0) {
    // The signal has its default action until `Kms.launch` listens; nothing has been acquired by then.
    const early = acquired.length === 0 && (exit.code !== null || exit.signal === round.first.name)
    return { ending: "before it had begun", problems: early ? [] : [`ended by ${exit.signal ?? exit.code}`] }
  }
  const atOnce = output.includes("exit at once")
  const problems = [...released(output), ...times(round, seen, atOnce, slack + late)]
  if (atOnce) {
    if (exit.code !== 1) problems.push(`exit code ${exit.code} after a second signal`)
    if (round.second === undefined || !isSecond(round.first, round.second))
      problems.push("one signal was taken for two")
    return { ending: "1, at once", problems }
  }
  const expected = code(round, output)
  if (expected !== undefined && exit.code !== expected) problems.push(`exit code ${exit.code}, not ${expected}`)
  if (exit.code !== 0 && exit.code !== 1) problems.push(`exit code ${exit.code}`)
  if (round.faults.finalizer !== "hangs" && names(output, "-").length !== acquired.length)
    problems.push(`acquired ${acquired.join(" ")}, released ${names(output, "-").join(" ")}`)
  for (const { at, how, idle, written } of seen.failures)
    problems.push(
      `a well-behaved client lost a request: ${how} after ${Math.round(at - written)} ms, idle for ${idle === undefined ? "-" : Math.round(idle)} ms`
    )
  if (seen.counts.twice > 0) problems.push("an answer came twice")
  return { ending: exit.code === 0 ? "0" : "1", problems }
}

/** The exit code that is promised; nothing where it depends on which of two things came first. */
const code = ({ faults, peers }: Round, output: string): 0 | 1 | undefined => {
  const started = /^started /m.test(output)
  const releasing = /^-queue$/m.test(output)
  if (/no such table|Uncaught error/.test(output)) return 1
  if (faults.startUp === "hangs uninterruptibly" && /^starting$/m.test(output)) return 1
  if (releasing && ["fails", "throws", "hangs"].includes(faults.finalizer)) return 1
  if (faults.work === "hung section") return started ? 1 : undefined
  if (/^begun \/never$/m.test(output)) return 1
  if (peers.some((peer) => holdsOn.has(peer))) return 1
  return 0
}

const names = (output: string, sign: "+" | "-"): ReadonlyArray<string> =>
  output.split("\n").filter((line) => /^[+-][a-z]+$/.test(line) && line.startsWith(sign))

const released = (output: string): ReadonlyArray<string> => {
  const acquired = names(output, "+").map((name) => name.slice(1))
  const released = names(output, "-").map((name) => name.slice(1))
  const problems: Array<string> = []
  if (new Set(released).size < released.length) problems.push(`released twice: ${released.join(" ")}`)
  const order = acquired.filter((name) => released.includes(name)).reverse()
  if (order.join() !== released.join()) problems.push(`released in the order ${released.join(" ")}`)
  return problems
}

const times = (
  { first, second }: Round,
  { afterSecond, millis }: Seen,
  atOnce: boolean,
  late: number
): ReadonlyArray<string> => {
  const problems: Array<string> = []
  const most = timeout + forceTimeout + late
  if (millis > most) problems.push(`gone after ${Math.round(millis)} ms, more than ${most}`)
  if (
    second !== undefined &&
    isSecond(first, second) &&
    afterSecond !== undefined &&
    afterSecond > (atOnce ? late : heeding)
  )
    problems.push(
      `lived on for ${Math.round(afterSecond)} ms after a second signal${atOnce ? "" : ", which it did not heed"}`
    )
  return problems
}
