/**
 * The spans of a shutdown: one for the whole of it, and one for each drain and each finalizer with a name, beneath it where
 * they have the same tracer.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Tracer from "effect/Tracer"

export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

/** A span that has begun, and the tracer it belongs to. */
export interface Trace {
  readonly span: Tracer.Span
  readonly tracer: Tracer.Tracer
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
  const beneath = parent?.tracer === tracer ? { parent: parent.span } : { root: true }
  const span = Effect.runSyncWith(services)(Effect.makeSpan(name, { ...beneath, attributes: known(attributes) }))
  return {
    span,
    tracer,
    end: (exit, attributes = {}) => {
      for (const [key, value] of Object.entries(known(attributes))) span.attribute(key, value)
      span.end(clock.currentTimeNanosUnsafe(), exit)
    }
  }
}

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
