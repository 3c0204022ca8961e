"""Check the key or password of a call under /v1, as API key or Basic."""

from starlette.requests import Request as Http

from ..session.accounts import Accounts, TooManyTries
from ..session.address import address_of
from .errors import Refused


async def check_key(accounts: Accounts, http: Http) -> None:
    """Raise Refused where this call's is invalid, or where too many are being tried."""
    if not accounts:
        return
    try:
        caller = await accounts.caller(http.headers.get("authorization"), address_of(http.headers))
    except TooManyTries as many:
        raise Refused(
            "Too many passwords for this user are being tried; try again in a moment.",
            status=429,
            code="guesses",
            retry_after=max(1, round(many.seconds)),
        ) from None
    if caller is None:
        raise Refused(
            "This server asks for a password or key; send a key that its operator gave you, or "
            "user:password, as the API key (Authorization: Bearer KEY), or as Basic.",
            status=401,
            code="invalid_api_key",
        )
