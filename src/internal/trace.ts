/**
 * The spans of a shutdown: one for the whole of it, and one for each drain and each finalizer with a name, beneath it where
 * they have the same tracer.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Tracer from "effect/Tracer"

export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

/** A span that has begun, and the tracer it belongs to. A tracer that throws keeps nobody from draining. */
export interface Trace {
  /** None where the tracer could not make one. */
  readonly span: Tracer.Span | undefined
  readonly tracer: Tracer.Tracer
  readonly event: (name: string) => void
  readonly end: (exit: Exit.Exit<unknown, unknown>, attributes?: Attributes) => void
}

/**
 * Begins a span with the tracer of `services`. Not beneath the span that is current there: that of a layer, or of whoever
 * acquired something, has ended long ago.
 */
export const begin = (
  services: Context.Context<never>,
  clock: Clock.Clock,
  name: string,
  attributes: Attributes,
  parent?: Trace | undefined
): Trace => {
  const tracer = Context.get(services, Tracer.Tracer)
  const isTimed = Context.get(services, References.TracerTimingEnabled)
  const now = () => (isTimed ? clock.currentTimeNanosUnsafe() : 0n)
  const above = parent?.tracer === tracer ? parent.span : undefined
  const beneath = above === undefined ? { root: true } : { parent: above }
  const span = attempt(() =>
    Effect.runSyncWith(services)(Effect.makeSpan(name, { ...beneath, attributes: known(attributes) }))
  )
  return {
    span,
    tracer,
    event: (name) => attempt(() => span?.event(name, now())),
    end: (exit, attributes = {}) =>
      attempt(() => {
        for (const [key, value] of Object.entries(known(attributes))) span?.attribute(key, value)
        span?.end(now(), exit)
      })
  }
}

const attempt = <A>(f: () => A): A | undefined => Result.getOrUndefined(Result.try(f))

const known = (attributes: Attributes): Record<string, unknown> =>
  Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined))

/** Where a listener is, by the names of OpenTelemetry. `address` is as people write it: `:3007`, or a path. */
export const location = (kind: string, address: string): Attributes => {
  const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? []
  const protocol = protocols[kind]
  return port === undefined
    ? { "network.transport": "unix", "server.address": address, "network.protocol.name": protocol }
    : {
        "network.transport": "tcp",
        "server.address": host === "" ? undefined : host,
        "server.port": Number(port),
        "network.protocol.name": protocol
      }
}

const protocols: Readonly<Record<string, string>> = { http: "http", https: "http", http2: "http" }
