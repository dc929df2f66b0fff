//! Sealed values as columns of bytes, for the shop's own driver. Plaintext types have no such implementations.

#[cfg(feature = "postgres-types")]
mod with_postgres_types {
    use std::error::Error;

    use bytes::BytesMut;
    use postgres_types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

    use crate::record::Sealable;
    use crate::sealed::Sealed;

    /// To a `bytea`, as it is.
    impl<T: Sealable, I> ToSql for Sealed<T, I> {
        fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
            self.as_bytes().to_sql(kind, out)
        }

        accepts!(BYTEA);
        to_sql_checked!();
    }

    /// From a `bytea`, its form checked as [`Sealed::from_bytes`] does.
    impl<'a, T: Sealable> FromSql<'a> for Sealed<T> {
        fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
            Ok(Sealed::from_bytes(raw.to_vec())?)
        }

        accepts!(BYTEA);
    }
}

#[cfg(feature = "sqlx-0_9")]
mod with_sqlx {
    use sqlx::encode::IsNull;
    use sqlx::error::BoxDynError;
    use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, Postgres};
    use sqlx::{Decode, Encode, Type};
    use sqlx_0_9 as sqlx;

    use crate::record::Sealable;
    use crate::sealed::Sealed;

    impl<T: Sealable, I> Type<Postgres> for Sealed<T, I> {
        fn type_info() -> PgTypeInfo {
            <Vec<u8> as Type<Postgres>>::type_info()
        }
    }

    /// For `unnest($1::bytea[])`.
    impl<T: Sealable, I> PgHasArrayType for Sealed<T, I> {
        fn array_type_info() -> PgTypeInfo {
            <Vec<u8> as PgHasArrayType>::array_type_info()
        }
    }

    /// To a `bytea`, as it is.
    impl<T: Sealable, I> Encode<'_, Postgres> for Sealed<T, I> {
        fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
            <&[u8] as Encode<'_, Postgres>>::encode(self.as_bytes(), buffer)
        }
    }

    /// From a `bytea`, its form checked as [`Sealed::from_bytes`] does.
    impl<T: Sealable> Decode<'_, Postgres> for Sealed<T> {
        fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
            Ok(Sealed::from_bytes(<Vec<u8> as Decode<'_, Postgres>>::decode(value)?)?)
        }
    }
}
