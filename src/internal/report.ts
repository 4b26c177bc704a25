/**
 * What a shutdown did, as data and as text. Every number in it was counted.
 */
import type * as Exit from "effect/Exit"
import type { Reason } from "./phase.ts"
import { describe } from "./phase.ts"

/** One listener, now. */
export interface ListenerStatus {
  readonly name: string
  readonly kind: string
  readonly address: string
  readonly state: "open" | "draining" | "closed"
  /** Connections that are open. */
  readonly connections: number
  /** Requests, upgraded connections and their handlers that have not ended. */
  readonly inFlight: number
  /** What has been in flight longest, in words; never with a query string. */
  readonly oldest: string | undefined
}

/** One listener's drain. */
export interface ListenerReport {
  readonly name: string
  readonly kind: string
  readonly address: string
  /** Requests and upgraded connections that ended by themselves after the drain began. */
  readonly drained: number
  /** Requests and upgraded connections that were destroyed because their time was over. */
  readonly cut: number
  /** Handlers that did not end after they had been interrupted. */
  readonly abandoned: number
  /** What was cut, in words, at most 20 of them. */
  readonly cutWork: ReadonlyArray<string>
  /** Whether it was cut: by the deadline, or by its own `drainTimeout`. */
  readonly forced: boolean
  /** From the beginning of its drain to the end, in milliseconds. */
  readonly millis: number
}

/** One busy section that was live when the shutdown began, or after. */
export interface SectionStatus {
  readonly name: string
  /** Milliseconds since it began. */
  readonly age: number
}

/** One finalizer with a name. */
export interface FinalizerReport {
  readonly name: string
  readonly outcome: "released" | "failed" | "timed out" | "abandoned"
  readonly exit: Exit.Exit<unknown, unknown> | undefined
  readonly millis: number
}

/** What is open now. */
export interface Status {
  readonly listeners: ReadonlyArray<ListenerStatus>
  readonly sections: ReadonlyArray<SectionStatus>
  /** Named finalizers that are running. */
  readonly finalizers: ReadonlyArray<SectionStatus>
}

/** What a shutdown did. */
export interface Report {
  readonly reason: Reason
  /** Whether the deadline came before the work was done. */
  readonly forced: boolean
  /** From the reason to the end, in milliseconds. */
  readonly millis: number
  readonly listeners: ReadonlyArray<ListenerReport>
  /** Busy sections that the deadline cut. */
  readonly sections: ReadonlyArray<SectionStatus>
  readonly finalizers: ReadonlyArray<FinalizerReport>
  /** What had not ended when the process was given up, in words. */
  readonly hung: ReadonlyArray<string>
}

export const duration = (millis: number): string =>
  millis === Number.POSITIVE_INFINITY
    ? "for ever"
    : millis < 1000
      ? `${Math.round(millis)}ms`
      : `${Math.round(millis / 100) / 10}s`

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`

/** The first line: what begins, why, and how long it may take. */
export const began = (reason: Reason, status: Status, limits: { timeout: number; lameDuck: number }): string => {
  const open = waiting(status)
  const lameDuck = limits.lameDuck > 0 ? ` Lame duck for ${duration(limits.lameDuck)} first.` : ""
  const limit = limits.timeout === Number.POSITIVE_INFINITY ? "No time limit" : `At most ${duration(limits.timeout)}`
  return `Shutting down (${describe(reason)}). ${limit}.${lameDuck} Open: ${open.length === 0 ? "nothing" : open.join("; ")}`
}

/** What a shutdown still waits for, a phrase each. */
export const waiting = (status: Status): Array<string> => [
  ...status.listeners
    .filter((listener) => listener.connections > 0 || listener.inFlight > 0)
    .map(
      (listener) =>
        `${listener.name}: ${count(listener.connections, "connection")}, ${listener.inFlight} in flight` +
        (listener.oldest === undefined ? "" : `, oldest ${listener.oldest}`)
    ),
  ...status.sections.map((section) => `busy "${section.name}" for ${duration(section.age)}`),
  ...status.finalizers.map((finalizer) => `finalizer "${finalizer.name}" for ${duration(finalizer.age)}`)
]

/** The last lines: how it ended. */
export const ended = (report: Report): string => {
  const how = report.forced
    ? "cut at its deadline"
    : report.listeners.some(({ forced }) => forced)
      ? "complete, with work cut,"
      : "complete"
  const lines = [`Shutdown ${how} after ${duration(report.millis)} (${describe(report.reason)})`]
  for (const listener of report.listeners) {
    lines.push(
      `  ${listener.name}: ${listener.drained} drained, ${listener.cut} cut, ${listener.abandoned} abandoned, ${duration(listener.millis)}`
    )
    for (const work of listener.cutWork) lines.push(`    cut: ${work}`)
  }
  for (const section of report.sections) lines.push(`  busy "${section.name}": cut after ${duration(section.age)}`)
  for (const finalizer of report.finalizers) {
    lines.push(`  finalizer "${finalizer.name}": ${finalizer.outcome} after ${duration(finalizer.millis)}`)
  }
  for (const hung of report.hung) lines.push(`  hung: ${hung}`)
  return lines.join("\n")
}
