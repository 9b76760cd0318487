"""What the request and the answers look like, for /openapi.json: the body is parsed by hand, so it is described so."""

from typing import Any

from mien import tables

REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["pictures"],
                    "properties": {
                        "pictures": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            }
        },
    }
}

_TEXT = ("source", "expression", "status")
_ALWAYS = ("source", "status")  # every row says
_REFUSALS = {
    401: "The token is missing or wrong",
    403: "Another site's page, or a Host that is not this server's",
    408: "The request did not arrive in time",
    413: "Too large: the body, the number of pictures, or a picture's pixels",
    415: "Not multipart/form-data, or not a picture in a format that mien reads",
    422: "Not well-formed, a damaged picture, or too many faces in one",
    429: "Too many requests under way",
    500: "A defect of mien's",
    503: "No answer in time",
}


def _row() -> dict[str, Any]:
    kinds = {name: "string" if name in _TEXT else "integer" if name == "face" else "number" for name in tables.COLUMNS}
    properties = {name: {"type": kind if name in _ALWAYS else [kind, "null"]} for name, kind in kinds.items()}
    return {"type": "object", "required": list(tables.COLUMNS), "properties": properties}


def _refusal(description: str) -> dict[str, Any]:
    error = {
        "type": "object",
        "required": ["code", "reason", "limit"],
        "properties": {
            "code": {"type": "string"},
            "reason": {"type": "string"},
            "limit": {"type": ["number", "null"]},
        },
    }
    schema = {"type": "object", "required": ["error"], "properties": {"error": error}}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


GUARDED: dict[int | str, dict[str, Any]] = {status: _refusal(_REFUSALS[status]) for status in (401, 403)}
READ: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A row for each face; box in px of the upright picture, probabilities 0-1",
        "content": {"application/json": {"schema": {"type": "array", "items": _row()}}},
    },
    **{status: _refusal(description) for status, description in _REFUSALS.items()},
}


def with_token(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that also says where a token may be asked for."""
    schema.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "401" in operation["responses"]:
                operation["security"] = [{}, {"token": []}]  # where the server was started without one, none
    return schema
