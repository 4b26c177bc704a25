/**
 * What is done to a response at the moment in which its head is written: before that, nobody can tell how it will stand.
 */
import type { ServerResponse } from "node:http"

/** What `writeHead` is called with: the status, maybe a reason, maybe headers in one of several forms. */
type Head = ReadonlyArray<unknown>

/** Calls `before` with the head of a response, which it may change, and `after` once that is written. */
export const onHead = (response: ServerResponse, before: (head: Head) => Head, after?: () => void): void => {
  const writeHead = response.writeHead as (...head: Head) => ServerResponse
  response.writeHead = function (this: ServerResponse, ...head: Head) {
    const written = writeHead.apply(this, before(head) as Array<unknown>)
    after?.()
    return written
  } as ServerResponse["writeHead"]
}

/**
 * Lets the head of a response say that its connection closes. Node says so itself, unless the application has set the
 * header: then Node takes its word for it. Who passes on the headers of another server says `keep-alive` without a thought.
 */
export const sayClose = (response: ServerResponse, head: Head): Head => {
  response.shouldKeepAlive = false
  const own = response.getHeader("connection")
  if (own !== undefined) response.setHeader("connection", closing(own))
  return [...head.slice(0, -1), withClose(head.at(-1))]
}

const withClose = (headers: unknown): unknown => {
  if (Array.isArray(headers)) {
    return headers.map((each: unknown, index) => {
      if (Array.isArray(each)) return isConnection(each[0]) ? [each[0], closing(each[1])] : each
      return index % 2 === 1 && isConnection(headers[index - 1]) ? closing(each) : each
    })
  }
  if (typeof headers !== "object" || headers === null) return headers
  const name = Object.keys(headers).find(isConnection)
  return name === undefined ? headers : { ...headers, [name]: closing((headers as Record<string, unknown>)[name]) }
}

const isConnection = (name: unknown): boolean => typeof name === "string" && /^connection$/i.test(name)

/** A value of the `Connection` header with `close` in place of `keep-alive` (RFC 9112 section 9.6). */
const closing = (value: unknown): string => {
  const options = String(value)
    .split(",")
    .map((option) => option.trim())
    .filter((option) => option !== "" && !/^(keep-alive|close)$/i.test(option))
  return [...options, "close"].join(", ")
}
