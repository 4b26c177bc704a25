/**
 * What came of restarts under load: where each failure belongs, which of them are explained, and what is wrong.
 */
import { type Failure, kinds } from "./ledger.ts"
import type { Life, Rolled } from "./rolling.ts"

export interface Scenario extends Rolled {
  readonly name: string
  readonly restarts: number
  /** What else has to be known. */
  readonly notes: ReadonlyArray<string>
  /** Why no server can avoid this failure, as far as its evidence goes; nothing where it should not have been. */
  readonly explain: (failure: Failure, rolled: Rolled) => string | undefined
}

/** Where in a restart something happened: the last event of any server before it, and how long after. */
export const phase = (at: number, lives: ReadonlyArray<Life>): string => {
  const events = lives.flatMap(({ draining, ended, lameDuck, served, signalled }) => [
    { name: "a server had begun to listen", at: served },
    { name: lameDuck > 0 ? "the lame duck had begun" : "SIGTERM had been sent", at: signalled },
    { name: "a server had stopped accepting", at: draining },
    { name: "a server had exited", at: ended }
  ])
  let last: { readonly name: string; readonly at: number } | undefined
  for (const { at: time, name } of events) {
    if (time === undefined || time > at || (last !== undefined && last.at > time)) continue
    last = { name, at: time }
  }
  return last === undefined ? "before the first restart" : `after ${last.name}`
}

/** What is known of a failure, in milliseconds around the nearest moment in which a server stopped accepting. */
const evidence = ({ at, how, idle, kind, opened, written }: Failure, lives: ReadonlyArray<Life>): string => {
  const stops = lives.flatMap(({ draining }) => (draining === undefined ? [] : [draining]))
  const stop = stops.sort((a, b) => Math.abs(at - a) - Math.abs(at - b))[0] ?? at
  const from = (time: number): string => (time - stop).toFixed(1)
  const before = idle === undefined ? "the first on it" : `idle for ${idle.toFixed(1)}`
  return `${kind}: ${how}, opened at ${from(opened)}, ${before}, written at ${from(written)}, failed at ${from(at)}`
}

export interface Judged {
  readonly failures: ReadonlyArray<{
    readonly failure: Failure
    readonly phase: string
    readonly reason: string | undefined
  }>
  /** Exit codes, each with how often. */
  readonly exits: ReadonlyMap<string, number>
  /** What must not be. */
  readonly problems: ReadonlyArray<string>
}

export const judge = (scenario: Scenario): Judged => {
  const { counted, explain, lives } = scenario
  const problems: Array<string> = []
  const exits = new Map<string, number>()
  for (const { exit } of lives) {
    const how = exit === undefined ? "none" : String(exit.code ?? exit.signal)
    exits.set(how, (exits.get(how) ?? 0) + 1)
  }
  const bad = lives.filter(({ exit }) => exit?.code !== 0).length
  if (bad > 0) problems.push(`${bad} servers did not exit with 0`)
  const cut = lives.reduce((sum, { told }) => sum + (told?.cut ?? 0), 0)
  if (cut > 0) problems.push(`${cut} connections were cut`)
  const silent = lives.filter(({ told }) => told === undefined).length
  if (silent > 0) problems.push(`${silent} servers ended without a report`)

  const failures = scenario.failures.map((failure) => ({
    failure,
    phase: phase(failure.at, lives),
    reason: explain(failure, scenario)
  }))
  const unexplained = failures.filter(({ reason }) => reason === undefined)
  if (unexplained.length > 0) {
    const few = unexplained.slice(0, 5).map(({ failure }) => evidence(failure, lives))
    problems.push(`${unexplained.length} failures are not explained: ${few.join("; ")}`)
  }

  for (const kind of kinds) {
    const counts = counted[kind]
    if (counts === undefined) continue
    if (counts.lost > 0) problems.push(`${kind}: ${counts.lost} events were lost`)
    if (counts.twice > 0) problems.push(`${kind}: ${counts.twice} came twice`)
    if (counts.answered === 0) problems.push(`${kind}: nothing was answered`)
    const { answered, failed, repeated, sent } = counts
    const told = kind === "HTTP/2" || kind === "WebSocket" ? repeated : 0
    // A WebSocket that failed has its messages counted by what was sent again.
    if (kind !== "WebSocket" && sent !== answered + failed + told)
      problems.push(`${kind}: ${sent} sent, but ${answered} answered, ${failed} failed, ${told} repeated`)
    if (kind === "WebSocket" && sent !== answered + told)
      problems.push(`${kind}: ${sent - told - answered} messages were lost`)
  }
  const processed = lives.reduce((sum, { told }) => sum + (told?.messages ?? 0), 0)
  const acknowledged = counted.WebSocket?.answered ?? 0
  if (silent === 0 && processed !== acknowledged)
    problems.push(`${processed} messages were processed, ${acknowledged} acknowledged`)
  return { failures, exits, problems }
}
