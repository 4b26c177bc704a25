/**
 * What is done to a response at the moment in which its head is written: before that, nobody can tell how it will stand.
 */
import type { ServerResponse } from "node:http"

/** What `writeHead` is called with: the status, maybe a reason, maybe headers in one of several forms. */
type Head = ReadonlyArray<unknown>

/** Calls `before` with the head of a response, which it may change, and `after` once that is written. */
export const onHead = (response: ServerResponse, before: (head: Head) => Head, after: () => void): void => {
  const writeHead = response.writeHead as (...head: Head) => ServerResponse
  response.writeHead = function (this: ServerResponse, ...head: Head) {
    // A second one is an error, and changes nothing.
    if (response.headersSent) return writeHead.apply(this, head as Array<unknown>)
    const written = writeHead.apply(this, before(head) as Array<unknown>)
    after()
    return written
  } as ServerResponse["writeHead"]
}

/** A header as it was sent, whoever set it. Node keeps the whole head to itself; pinned by a test. */
export const sent = (response: ServerResponse, name: string): string => {
  const head = (response as { readonly _header?: string | null })._header ?? ""
  return new RegExp(`^${name}: *(.*)$`, "im").exec(head)?.[1] ?? ""
}

/** Whether the head that was sent says that the connection closes. */
export const saysClose = (response: ServerResponse): boolean => /\bclose\b/i.test(sent(response, "connection"))

/**
 * Lets a head say that its connection closes. Node does so by itself, unless the application has a header of its own: then
 * Node takes its word for it. Who passes on the headers of another server says `keep-alive` without a thought.
 */
export const sayClose = (response: ServerResponse, head: Head): Head => {
  response.shouldKeepAlive = false
  const own = response.getHeader("connection")
  if (own !== undefined) response.setHeader("connection", closing(own) as string)
  return head.map(withClose)
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
const closing = (value: unknown): unknown => {
  // An error, which is Node's to tell of.
  if (value === undefined) return value
  const options = String(value)
    .split(",")
    .map((option) => option.trim())
    .filter((option) => option !== "" && !/^(keep-alive|close)$/i.test(option))
  return [...options, "close"].join(", ")
}
