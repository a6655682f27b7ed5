/** What Curfew's API says of a request's fields, in the words of the options that they came from. */

const optionOf: Readonly<Record<string, string>> = {
  'filter.resourceOwners': '--org',
  'filter.userIds': '--user',
  'filter.sessionIds': '--session',
  'filter.clientIds': '--client',
  'filter.fingerprintIds': '--fingerprint',
  'filter.ips': '--ip',
  'filter.bornBefore': '--born-before',
  'filter.bornAfter': '--born-after',
  'exclude.userIds': '--exclude-user',
  'exclude.sessionIds': '--exclude-session',
  'pacing.deliveriesPerSecond': '--deliveries-per-second',
  reason: '--reason',
  ticket: '--ticket',
}

/** Whatever is said of nothing that is in an option stays as it is. */
export const inOptions = (says: string): string =>
  says
    .replace(/^([A-Za-z.]+)(?:\[(\d+)\])?(?=: )/, (field, name: string, place?: string) => {
      const option = optionOf[name]
      if (option === undefined) return field
      return place === undefined || place === '0' ? option : `${option}, number ${Number(place) + 1}`
    })
    .replace(/\{"only":"(\w+)"\}/, '--only $1')
