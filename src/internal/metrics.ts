/**
 * What a shutdown and its listeners tell through `Metric`. Nothing is counted for it: each series is read off its listener
 * when somebody takes a snapshot, so that it costs nothing as long as nobody does.
 */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { Phase } from "./phase.ts"

/** What there is to read of a listener. */
export interface Source {
  readonly connections: number
  readonly inFlight: number
  readonly accepted: number
  readonly drained: number
  readonly cut: number
  readonly abandoned: number
  /** Seconds. */
  readonly draining: number
}

interface Series {
  readonly name: string
  readonly type: "counter" | "gauge"
  readonly description: string
}

const series: Readonly<Record<keyof Source, Series>> = {
  connections: { name: "kms_connections", type: "gauge", description: "Connections that are open" },
  inFlight: {
    name: "kms_in_flight",
    type: "gauge",
    description: "Requests, upgraded connections and their handlers that have not ended"
  },
  accepted: { name: "kms_accepted_total", type: "counter", description: "Connections that were accepted" },
  drained: {
    name: "kms_drained_total",
    type: "counter",
    description: "Requests and connections that ended by themselves since the drain began"
  },
  cut: {
    name: "kms_cut_total",
    type: "counter",
    description: "Requests and connections that were destroyed because their time was over"
  },
  abandoned: {
    name: "kms_abandoned",
    type: "gauge",
    description: "Handlers that did not end after they had been interrupted"
  },
  draining: { name: "kms_drain_seconds", type: "gauge", description: "How long the drain has taken so far" }
}

/** The series of one listener. Returns their removal. */
export const listener = (
  services: Context.Context<never>,
  attributes: { readonly listener: string; readonly kind: string; readonly address: string },
  read: () => Source
): (() => void) => {
  const registrations = Object.entries(series).map(([key, { description, name, type }]) => {
    const value = () => read()[key as keyof Source]
    return type === "gauge"
      ? gauge(services, name, description, attributes, value)
      : Metric.registerUnsafe(Metric.counter(name, { description, attributes, incremental: true }), services, {
          get: () => ({ count: value(), incremental: true }),
          update: ignore,
          modify: ignore
        })
  })
  return () => registrations.forEach((registration) => registration.remove())
}

/** The series of a shutdown. Returns their removal. */
export const shutdown = (
  services: Context.Context<never>,
  phase: () => Phase["_tag"],
  sections: () => number
): (() => void) => {
  const registrations = phases.map((tag) =>
    gauge(services, "kms_phase", "1 for the phase that the shutdown is in, 0 for the others", { phase: tag }, () =>
      phase() === tag ? 1 : 0
    )
  )
  registrations.push(gauge(services, "kms_busy_sections", "Busy sections that are live", {}, sections))
  return () => registrations.forEach((registration) => registration.remove())
}

const phases = ["Running", "LameDuck", "Draining", "Unwinding", "Stopped"] as const satisfies ReadonlyArray<
  Phase["_tag"]
>

const gauge = (
  services: Context.Context<never>,
  name: string,
  description: string,
  attributes: Readonly<Record<string, string>>,
  value: () => number
): Metric.Registration =>
  Metric.registerUnsafe(Metric.gauge(name, { description, attributes }), services, {
    get: () => ({ value: value() }),
    update: ignore,
    modify: ignore
  })

const ignore = (): void => {}
